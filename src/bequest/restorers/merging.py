"""Restorers that merge channels: those that stay become means of all, instead of carrying others.

A merging of n channels into p is two matrices. With the filters [w̃; b̃] as rows, the batch norm
folded in, filter k becomes Σ_j A[k, j]·[w̃_j; b̃_j], the rows of A sum to 1; what reads the channels
becomes W'[:, k] = Σ_j W[:, j]·B[j, k], the rows of B sum to 1. Which channel stays doesn't matter
where A takes all alike: the place of k is but where a mean is written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, linalg

from bequest.artifact.plan import GroupPlan
from bequest.execution.precision import rounded
from bequest.execution.progress import tracked
from bequest.graph.coupled import Coupled, Member, couple
from bequest.graph.functions import ObstacleError
from bequest.graph.trace import named_tensors
from bequest.graph.units import BatchNorm
from bequest.restorers.base import Attempt, Restored, Restorer, group_plan
from bequest.surgery import operation
from bequest.surgery.cut import Chosen
from bequest.surgery.cuts import plan_surgery

SMALLEST = 1e-12
"""A batch norm whose factor is under this makes its channel constant."""

MERGED = "channels were merged"


@dataclass(frozen=True)
class Merge:
    """How n channels become p; float64.

    Attributes:
        means: A, (p, n); rows sum to 1.
        shares: B, (n, p); rows sum to 1.
        gains: for each producer with a batch norm the factor (p,) by which what varies of a merged
            channel is scaled; None = 1.
    """

    means: Tensor
    shares: Tensor
    gains: tuple[Tensor | None, ...]


class Merging(Restorer):
    """Merges the channels of each group, residual streams too, reading dense numbers alone."""

    def restore(self, attempt: Attempt) -> Restored:
        """Merges, and removes the places that are free then."""
        model, pruned = attempt.subject.dense, attempt.copy()
        dense, tensors = named_tensors(model), named_tensors(pruned)
        plans: list[GroupPlan] = []
        for one in tracked(attempt.chosen, "merging", attempt.chosen, attempt.progress):
            try:
                coupled = couple(attempt.subject.channels, one.group, dense)
            except ObstacleError as obstacle:
                plans.append(group_plan(one, "none", None, (f"pruned plainly: {obstacle}",)))
                continue
            plans.append(self._applied(coupled, one, tensors, attempt.seed))
        surgery = plan_surgery(attempt.cut, model)
        operation.apply(pruned, surgery)
        return Restored(pruned, surgery, tuple(plans))

    def _applied(
        self, coupled: Coupled, one: Chosen, tensors: Mapping[str, Tensor], seed: int
    ) -> GroupPlan:
        device = coupled.members[0].producer.stored.device
        kept = torch.from_numpy(np.flatnonzero(one.keep)).to(device)
        merge = self.merge(coupled, kept, seed)
        for member, gain in zip(coupled.members, merge.gains, strict=True):
            _write_producer(member, kept, merge.means, gain, tensors)
        for feed in coupled.feeds:
            assert feed.read.weight is not None
            columns = torch.from_numpy(feed.columns).to(device)
            weight = tensors[feed.read.weight].detach().movedim(feed.read.dim, 0)
            new = torch.einsum("jk,jt...->kt...", merge.shares, weight[columns].double())
            weight[columns[kept]] = rounded(feed.read.weight, new, weight.dtype, MERGED)
        removed = torch.from_numpy(np.flatnonzero(~one.keep)).to(device)
        error = float(merging_error(coupled, merge)[removed].mean()) if len(removed) else 0.0
        return group_plan(one, self.name, error, ())

    @abstractmethod
    def merge(self, coupled: Coupled, kept: Tensor, seed: int) -> Merge:
        """How the group's channels become as many as ``kept`` has.

        Args:
            coupled: the group in dense numbers.
            kept: int64 (p,), ascending: who the criterion would have stay.
            seed: of every draw.
        """


def one_hot(labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The means and shares of clusters: A (p, n) and B (n, p).

    Args:
        labels: int64 (n,): the cluster of every channel.
        size: p; every cluster has a member.
    """
    shares = torch.nn.functional.one_hot(labels, size).double()
    return (shares / shares.sum(dim=0)).T, shares


def merging_error(coupled: Coupled, merge: Merge) -> Tensor:
    """How far each channel's filter is from what stands for it, ‖r̃_j − Σ_k B_jk·r̃'_k‖/‖r̃_j‖.

    Returns:
        float64 (n,), over the rows [w̃; b̃] of all producers side by side.
    """
    left, size = [], []
    for member, gain in zip(coupled.members, merge.gains, strict=True):
        rows = member.rows()
        new = merge.means @ rows
        if gain is not None:
            new = _stretched(member, new, merge.means, gain)
        left.append(rows - merge.shares @ new)
        size.append(rows)
    norms = linalg.vector_norm(torch.cat(size, dim=1), dim=1)
    scale = norms.clamp(min=1e-6 * float(norms.max()))
    return torch.where(scale > 0, linalg.vector_norm(torch.cat(left, dim=1), dim=1) / scale, 0.0)


def _stretched(member: Member, rows: Tensor, means: Tensor, gain: Tensor) -> Tensor:
    """Merged rows with what varies scaled: the channel's mean β stays where it is."""
    assert member.producer.norm is not None
    beta = means @ member.producer.norm.beta
    centred = torch.cat([rows[:, :-1], (rows[:, -1] - beta)[:, None]], dim=1) * gain[:, None]
    centred[:, -1] += beta
    return centred


def _write_producer(
    member: Member,
    kept: Tensor,
    means: Tensor,
    gain: Tensor | None,
    tensors: Mapping[str, Tensor],
) -> None:
    """Writes the merged filters, and the numbers of the batch norm behind them.

    The weight may have been merged along its columns already, so that it is multiplied, not
    replaced. A merged batch norm has the means of β and the running variances, and the root mean
    square of γ; its running mean is chosen so that the merged bias comes out.
    """
    producer, norm = member.producer, member.producer.norm
    rows = member.rows_of(kept)
    factor, values = means, dict[str, Tensor]()
    bias = None if producer.bias is None else means @ producer.bias
    if bias is not None and member.bias is not None:
        values[member.bias] = bias
    if norm is not None:
        slope = norm.gamma / norm.sigma
        merged = _merged(norm, means, member.norm["gamma"] is not None)
        wanted = means @ member.rows()[:, -1]
        beta = means @ norm.beta
        if gain is not None:
            wanted = beta + gain * (wanted - beta)
        new = merged.gamma / merged.sigma
        dead = new.abs() < SMALLEST
        back = torch.where(dead, 0.0, 1 / torch.where(dead, 1.0, new))
        factor = back[:, None] * means * slope
        if gain is not None:
            factor = gain[:, None] * factor
        level = torch.where(dead, wanted, merged.beta)
        shift = (level - wanted) * back if bias is None else bias + (level - wanted) * back
        found = {"gamma": merged.gamma, "beta": level, "mean": shift, "var": merged.var}
        values |= {name: found[key] for key, name in member.norm.items() if name is not None}
    weight = tensors[member.weight].detach().movedim(member.dim, 0)
    new_rows = torch.einsum("kj,j...->k...", factor, weight[member.rows_of()].double())
    weight[rows] = rounded(member.weight, new_rows, weight.dtype, MERGED)
    for name, vector in values.items():
        held = tensors[name].detach()
        held[rows] = rounded(name, vector, held.dtype, MERGED)


def _merged(norm: BatchNorm, means: Tensor, affine: bool) -> BatchNorm:
    var = means @ norm.var
    gamma = (means @ norm.gamma.square()).sqrt() if affine else torch.ones_like(var)
    beta = means @ norm.beta
    return BatchNorm(gamma, beta, torch.zeros_like(var), var, norm.eps)

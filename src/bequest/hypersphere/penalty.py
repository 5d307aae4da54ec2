"""The penalty that drives part of the weights to zero and the others away from it.

Liu, Liu, "Pruning on-the-fly: a recoverable pruning method without fine-tuning", arXiv 2212.12651,
say what the penalty does but not its formula, weight or schedule; the forms here are our reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bequest.errors import UsageError
from bequest.hypersphere.geometry import lengths, unit
from bequest.hypersphere.masks import check_sparsity, make_masks
from bequest.hypersphere.prunable import directions

Form = Literal["cosine", "two-term"]


def penalty(
    module: nn.Module,
    sparsity: float,
    form: Form = "cosine",
    *,
    mask: str = "layer",
    skip: Sequence[str] = (),
    push: float = 0.001,
) -> Tensor:
    """How far the filters are from being pruned already.

    With v_i = w_i/‖w_i‖, M the mask of the (1 − sparsity) largest |v|, k_i the number of weights
    that stay in filter i, T_i = sgn(v_i)·M_i and v̂_i = T_i/‖T_i‖ = T_i/√k_i:

    * "cosine": (1/n) Σ_i (1 − v̂ᵢᵀv_i) over the n filters, in [0, 1]. It is 0 where every filter
      holds nothing but 0 and ±c_i with its share of zeros.
    * "two-term": mean of v² over the weights that go + ``push`` · mean of relu(1/√k_i − |v|)² over
      those that stay. Unlike the cosine it hardly asks the weights that stay to be of one size.

    The mask is a constant for the gradient, and the gradient is orthogonal to each filter.

    Args:
        module: a network or a single layer, plain or converted.
        sparsity: share of the weights to drive to zero, in [0, 1).
        form: which of the two.
        mask: how the share is counted: per "layer", per "filter", "global" or "N:M"; see
            :func:`bequest.hypersphere.masks.make_masks`.
        skip: shell patterns of the names of layers to leave alone.
        push: weight of the second of the two terms.

    Returns:
        A differentiable scalar.

    Raises:
        UsageError: an argument is out of range.
        ModelError: the module has no layer that could be pruned.
    """
    weights = directions(module, skip)
    return _measure(weights, ternary(weights, check_sparsity(sparsity), mask), form, push)


def ternary(weights: Mapping[str, Tensor], sparsity: float, mask: str) -> dict[str, Tensor]:
    """T = sgn(v)·M of each layer: 0 for a weight that goes, ±1 for one that stays."""
    with torch.no_grad():
        masks = make_masks(weights, sparsity, mask)
        # In place, as the order of sums depends on the memory format, which is the weight's.
        return {name: torch.sign(weight).mul_(masks[name]) for name, weight in weights.items()}


def _measure(
    weights: Mapping[str, Tensor], targets: Mapping[str, Tensor], form: Form, push: float
) -> Tensor:
    if form == "cosine":
        distances = [_cosine_distance(w, targets[name]) for name, w in weights.items()]
        return torch.stack(distances).sum() / sum(len(w) for w in weights.values())
    if form == "two-term":
        return _two_terms(weights, targets, push)
    raise UsageError(f"form: expected one of {', '.join(get_args(Form))}; found {form!r}")


def _cosine_distance(weight: Tensor, target: Tensor) -> Tensor:
    """Σ_i 1 − v̂ᵢᵀv_i of a layer.

    Between unit vectors that is ½‖v_i − v̂_i‖², which has no rounding error of the size of 1. A
    filter of which nothing stays counts as 1.
    """
    distances = 0.5 * (unit(weight) - unit(target)).square().flatten(1).sum(dim=1)
    return torch.where(target.flatten(1).any(dim=1), distances, 1).sum()


def _two_terms(weights: Mapping[str, Tensor], targets: Mapping[str, Tensor], push: float) -> Tensor:
    near, far, stay = [], [], []
    for name, weight in weights.items():
        kept = targets[name].abs()
        size = unit(weight).abs()
        near.append(((1 - kept) * size).square().sum())
        far.append((kept / lengths(kept) - kept * size).relu().square().sum())
        stay.append(kept.sum())
    staying = torch.stack(stay).sum()
    going = sum(weight.numel() for weight in weights.values()) - staying
    total = torch.stack(near).sum() / going.clamp_min(1)
    return total + push * torch.stack(far).sum() / staying


class HypersphericalPenalty:
    """The penalty with its weight and schedule, for any training loop and any optimiser.

    One line in the loop: ``loss = criterion(output, y) + penalty(model)``. Each call counts as one
    step. What it adds is λ(t) times the *sum* over filters ("cosine") or over weights
    ("two-term"), so that the pull on one filter does not depend on how many others there are;
    λ(t) = weight · min(1, t/warmup)³ at step t: for long it is so small that the weights that go
    can still change places with those that stay.

    Args:
        sparsity: share of the weights to drive to zero, in [0, 1).
        weight: λ at the end of the warm-up.
        warmup: steps over which λ rises from 0.
        form: see :func:`penalty`.
        mask: how the share is counted; see :func:`penalty`.
        skip: shell patterns of the names of layers to leave alone.
        push: weight of the second of the two terms.
        refresh: steps after which it is decided anew which weights go. Between them the penalty
            costs a few element-wise operations per layer.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        sparsity: float,
        weight: float = 0.3,
        *,
        warmup: int = 1000,
        form: Form = "two-term",
        mask: str = "layer",
        skip: Sequence[str] = (),
        push: float = 0.001,
        refresh: int = 10,
    ) -> None:
        check_sparsity(sparsity)
        for name, number in (("weight", weight), ("push", push)):
            if not 0 <= number < math.inf:
                raise UsageError(f"{name}: expected a finite number of at least 0, found {number}")
        for name, value, least in (("warmup", warmup, 0), ("refresh", refresh, 1)):
            if value < least:
                raise UsageError(f"{name}: expected a number of at least {least}, found {value}")
        self.sparsity = sparsity
        self.weight = weight
        self.warmup = warmup
        self.form: Form = form
        self.mask = mask
        self.skip = tuple(skip)
        self.push = push
        self.refresh = refresh
        self.step = 0
        self._targets: dict[str, Tensor] = {}

    def __call__(self, module: nn.Module) -> Tensor:
        """The scalar to add to the loss of this step.

        Raises:
            ModelError: the module has no layer that could be pruned.
            UsageError: no such form or mask.
        """
        weights = directions(module, self.skip)
        if self.step % self.refresh == 0 or not self._targets:
            self._targets = ternary(weights, self.sparsity, self.mask)
        warm = min(1.0, self.step / self.warmup) if self.warmup else 1.0
        self.step += 1
        units = len if self.form == "cosine" else Tensor.numel
        total = sum(units(weight) for weight in weights.values())
        measured = _measure(weights, self._targets, self.form, self.push)
        return self.weight * warm**3 * total * measured

    def state_dict(self) -> dict[str, Tensor]:
        """The step, and for each layer which weights stay (int8, -1, 0 or 1)."""
        targets = {f"targets.{name}": t.to(torch.int8) for name, t in self._targets.items()}
        return {"step": torch.tensor(self.step), **targets}

    def load_state_dict(self, state: Mapping[str, Tensor], module: nn.Module) -> None:
        """Goes on where :meth:`state_dict` was taken, for ``module`` in the state of that time."""
        self.step = int(state["step"])
        self._targets = {
            name: torch.empty_like(weight).copy_(state[f"targets.{name}"])
            for name, weight in directions(module, self.skip).items()
            if f"targets.{name}" in state
        }

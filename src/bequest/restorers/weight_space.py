"""Restorers in weight space: removed channels are written in terms of the kept ones."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from bequest.artifact.plan import GroupPlan
from bequest.execution.progress import tracked
from bequest.graph.apart import apart
from bequest.graph.chains import Bound, bind
from bequest.graph.embedding import embedded
from bequest.graph.reading import Read
from bequest.graph.recurrence import is_recurrent
from bequest.graph.rules import Reading
from bequest.graph.trace import named_tensors
from bequest.graph.units import Unit
from bequest.restorers.base import Attempt, Restored, Restorer, group_plan
from bequest.restorers.batch_norm import affine
from bequest.restorers.exact import constants
from bequest.restorers.handing import Gain, Hand, hand_on, raise_biases, without_bias
from bequest.restorers.new_biases import mean_behind, taken_up
from bequest.surgery import operation
from bequest.surgery.cut import Chosen
from bequest.surgery.cuts import plan_surgery
from bequest.surgery.operation import can_hold_bias


@dataclass(frozen=True)
class Delivery:
    """What r removed channels leave to p kept ones; every tensor is float64.

    A consumer's weight W (o, n, q) becomes
    ``W'[:, k] = gain_k·W[:, k] + Σ_j matrix[j, k]·W[:, j]`` and its bias grows by
    ``Σ_j offset_j·Σ_q W[:, j, q]``, j over the removed and k over the kept channels.

    Attributes:
        matrix: (r, p); row j writes removed channel j in terms of the kept ones.
        offset: (r,), the constant that each removed channel leaves to the consumers' biases;
            None = nothing.
        gain: (p,), the factor on each kept channel's own weights; None = 1.
        notes: what the caller should report: fallbacks, guarded values, places of inexactness.
    """

    matrix: Tensor
    offset: Tensor | None = None
    gain: Tensor | None = None
    notes: tuple[str, ...] = ()


class WeightSpace(Restorer):
    """Writes removed channels in terms of kept ones, group by group.

    Every number that is read is a dense one: the outcome doesn't depend on the order of groups.
    """

    def restore(self, attempt: Attempt) -> Restored:
        """Hands removed channels on and removes them."""
        model, pruned = attempt.subject.dense, attempt.sharing_copy()
        reading, adds = attempt.subject.channels.reading, self.adds_biases(model)
        dense, tensors = named_tensors(model), named_tensors(pruned)
        surgery = plan_surgery(attempt.cut, model)
        waiting = Counter(name for one in attempt.chosen for name in _written(one))
        narrowed: set[str] = set()
        plans: list[GroupPlan] = []
        gains: list[Gain] = []
        for one in tracked(attempt.chosen, "handing on", attempt.chosen, attempt.progress):
            found = list[GroupPlan]()
            for part in _parts(attempt, one):
                bound = self._bound(attempt, part, dense)
                consumers = tuple(
                    replace(each, may_have_bias=_may_have_bias(model, reading, feed.read, adds))
                    for feed, each in zip(bound.feeds, bound.unit.consumers, strict=True)
                )
                bound = replace(bound, unit=replace(bound.unit, consumers=consumers))
                plan, gained = self._hand_on(bound, part, tensors, attempt.seed)
                found.append(plan)
                gains.extend(gained)
            plans.append(_together(one, found, self.name))
            # What nobody else writes to is cut at once, and never held whole beside all others.
            waiting.subtract(_written(one))
            ready = {name for name in _written(one) if not waiting[name]}
            operation.narrow(pruned, [cut for cut in surgery.cuts if cut.tensor in ready])
            narrowed |= ready
            for name in ready:
                del tensors[name]
        surgery = replace(surgery, biases=without_bias(model, gains))
        rest = tuple(cut for cut in surgery.cuts if cut.tensor not in narrowed)
        operation.apply(pruned, replace(surgery, cuts=rest))
        attempt.own(pruned)
        raise_biases(pruned, surgery, gains)
        if not adds:
            taken_up(pruned, reading, surgery.biases)
            surgery = replace(surgery, biases=())
        return Restored(pruned, surgery, tuple(plans))

    def _bound(self, attempt: Attempt, one: Chosen, dense: Mapping[str, Tensor]) -> Bound:
        """The group's numbers: a layer's filters, else what its channels say to noise."""
        channels = attempt.subject.channels
        bound = bind(channels, one.group, dense)
        if bound.unit.obstacle is None or self.name == "none":
            return bound
        return embedded(channels, one.group, bound, dense, attempt.seed)

    def _hand_on(
        self, bound: Bound, one: Chosen, tensors: Mapping[str, Tensor], seed: int
    ) -> tuple[GroupPlan, list[Gain]]:
        """One group; its float64 weights are gone when the next group is read."""
        unit = bound.unit
        if unit.obstacle is not None:
            asked = self.name != "none"
            notes = (f"pruned plainly: {unit.obstacle}",) if asked else ()
            return group_plan(one, "none", None, notes), []
        device = unit.device
        kept = torch.from_numpy(np.flatnonzero(one.keep)).to(device)
        removed = torch.from_numpy(np.flatnonzero(~one.keep)).to(device)
        delivery = _affordable(unit, self.deliver(unit, kept, removed, seed))
        hand = Hand(kept, removed, delivery.matrix, delivery.offset, delivery.gain)
        gained = hand_on(bound, hand, tensors)
        error = float(reconstruction_error(unit, kept, removed, delivery).mean())
        return group_plan(one, self.name, error, delivery.notes), gained

    def deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        """Hands the removed channels on.

        Args:
            unit: a group of n channels without ``obstacle``.
            kept: int64 (p,), ascending, p ≥ 1.
            removed: int64 (r,), ascending; every channel is either kept or removed.
            seed: of every draw that the restorer makes; the global generators are left alone.

        Returns:
            The delivery, finite, on the unit's device.

        Raises:
            ModelError: the outcome is not finite, as from weights that are not.
        """
        _check_partition(unit, kept, removed)
        if len(removed) == 0:
            return Delivery(nothing(unit, kept, removed))
        delivery = self._deliver(unit, kept, removed, seed)
        self._check(unit, delivery, len(kept), len(removed))
        return delivery

    @abstractmethod
    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        """The delivery of at least one removed channel, not yet checked."""

    def _check(self, unit: Unit, delivery: Delivery, p: int, r: int) -> None:
        expected = {"matrix": (r, p), "offset": (r,), "gain": (p,)}
        for field, shape in expected.items():
            tensor = getattr(delivery, field)
            if tensor is not None:
                unit.require_finite(tensor, shape, f"restorer '{self.name}'", field)


def nothing(unit: Unit, kept: Tensor, removed: Tensor) -> Tensor:
    """The matrix of a delivery in which removed channels leave nothing to kept ones, (r, p)."""
    return torch.zeros(len(removed), len(kept), dtype=torch.float64, device=unit.device)


def _written(one: Chosen) -> set[str]:
    """The weights that what a group hands on is written into."""
    return {read.weight for read in one.group.consumers if read.weight is not None}


def _check_partition(unit: Unit, kept: Tensor, removed: Tensor) -> None:
    everyone = torch.arange(unit.size, device=kept.device)
    ascending = all(bool((index.diff() > 0).all()) for index in (kept, removed))
    whole = torch.equal(torch.cat([kept, removed]).sort().values, everyone)
    if len(kept) == 0 or not ascending or not whole:
        raise ValueError(
            f"{unit.name}: expected kept and removed to be ascending and to share out channels "
            f"0 to {unit.size - 1}, with at least one kept; found {kept.tolist()} and "
            f"{removed.tolist()}"
        )


def reconstruction_error(unit: Unit, kept: Tensor, removed: Tensor, delivery: Delivery) -> Tensor:
    """How far each removed channel is from what was handed on for it.

    ‖r̃_j − Σ_k S_jk·r̃_k − [0; c_j]‖ / ‖r̃_j‖ on the rows r̃ = [W̃; b̃]: the filter and bias with
    the batch norm folded. A constant channel has the row [0; v], v its value behind the
    activation, for which alone it counts. Offsets count where they are in the same units: for
    constant channels and without activation. Rows under a millionth of the largest are measured
    against that millionth, so that a channel worth nothing counts 0 when nothing is handed on.

    Returns:
        float64 (r,): 0 where exact, 1 where nothing was handed on.
    """
    slope, biases = affine(unit.producer)
    constant, value = constants(unit)
    slope, biases = slope.masked_fill(constant, 0.0), torch.where(constant, value, biases)
    gap = biases[removed] - delivery.matrix @ biases[kept]
    if delivery.offset is not None:
        unbent = unit.activation is not None and unit.activation.is_identity
        comparable = constant[removed] | unbent
        gap -= torch.where(comparable, delivery.offset, 0.0)
    left = gap.square()
    for part in unit.producer.slices():
        rows = slope[:, None] * part
        left += (rows[removed] - delivery.matrix @ rows[kept]).square().sum(dim=1)
    norms = (slope.square() * unit.producer.summed(torch.square) + biases.square()).sqrt()
    scale = norms[removed].clamp(min=1e-6 * float(norms.max()))
    return torch.where(scale > 0, left.sqrt() / scale, 0.0)


def _parts(attempt: Attempt, one: Chosen) -> list[Chosen]:
    """A group, or what is handed on by itself in it."""
    parts = apart(attempt.subject.channels, one.group)
    if len(parts) == 1:
        return [one]
    places = (np.isin(one.group.channels, part.channels) for part in parts)
    return [replace(one, group=p, keep=one.keep[own]) for p, own in zip(parts, places, strict=True)]


def _together(one: Chosen, parts: Sequence[GroupPlan], restored_by: str) -> GroupPlan:
    """What the plan says of a group whose parts were handed on by themselves."""
    if len(parts) == 1:
        return parts[0]
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes[len(one.notes) :]))
    done = [
        (part.reconstruction_error, len(part.removed))
        for part in parts
        if part.reconstruction_error is not None
    ]
    if not done:
        return group_plan(one, "none", None, notes)
    error = sum(error * count for error, count in done) / max(1, sum(count for _, count in done))
    return group_plan(one, restored_by, error, notes)


def _may_have_bias(model: nn.Module, reading: Reading, read: Read, adds: bool) -> bool:
    """Whether a layer has a bias, or may be given one, if only for the batch norm behind it."""
    assert read.weight is not None
    if is_recurrent(read.node):
        return read.bias is not None
    layer = read.weight.removesuffix(".weight")
    added = {other.bias for other in reading.reads if other.weight == f"{layer}.weight"}
    if added == {f"{layer}.bias"}:  # whatever its class is
        return True
    if not can_hold_bias(model, layer):
        return False
    has_one = model.get_submodule(layer).bias is not None
    return adds or has_one or mean_behind(reading, layer) is not None


def _affordable(unit: Unit, delivery: Delivery) -> Delivery:
    """Without its offset where a consumer may have no bias."""
    if delivery.offset is None or unit.takes_constants:
        return delivery
    without = next(one.name for one in unit.consumers if not one.may_have_bias)
    note = f"'{without}' gets no bias: the constants of removed channels are lost"
    return replace(delivery, offset=None, notes=(*delivery.notes, note))

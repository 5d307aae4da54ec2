"""Two ways to restore what a selection removes: in weight space, or by a walk over inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from bequest.artifact.plan import GroupPlan
from bequest.calibration.samples import Samples
from bequest.calibration.walk import Walk
from bequest.execution.precision import rounded, working_precision
from bequest.execution.progress import tracked
from bequest.graph.chains import Bound, bind
from bequest.graph.groups import Channels
from bequest.graph.trace import named_tensors
from bequest.restorers.base import Delivery, Restorer, reconstruction_error
from bequest.restorers.handing import Gain, Hand, hand_on, raise_biases, without_bias
from bequest.restorers.held_back import Errors, Measure, split
from bequest.restorers.refit import Fit, Refit
from bequest.restorers.regression import MADE_UP, Regression
from bequest.selection.planning import Wish
from bequest.surgery import operation
from bequest.surgery.cut import Chosen, Cut
from bequest.surgery.cuts import plan_surgery
from bequest.surgery.operation import Surgery, can_hold_bias


@dataclass(frozen=True)
class Restored:
    """The pruned copy of a model, the surgery that made it, and what happened to each group."""

    model: nn.Module
    surgery: Surgery
    groups: tuple[GroupPlan, ...]


def in_weight_space(
    channels: Channels, chosen: list[Chosen], model: nn.Module, pruned: nn.Module, wish: Wish
) -> Restored:
    """Hands removed channels on, group by group, and removes them.

    Every number that is read is a dense one: the outcome doesn't depend on the order of groups.

    Args:
        channels: the dense network's groups.
        chosen: who leaves.
        model: the dense model; it is not changed.
        pruned: a copy of it, which is.
        wish: the checked call, with a weight-space restorer.
    """
    dense, tensors = named_tensors(model), named_tensors(pruned)
    plans: list[GroupPlan] = []
    gains: list[Gain] = []
    for one in tracked(chosen, "handing on", chosen, wish.progress):
        plan, gained = _deliver(bind(channels, one.group, dense), one, tensors, model, wish)
        plans.append(plan)
        gains.extend(gained)
    surgery = plan_surgery(Cut.of(channels, chosen), model)
    surgery = replace(surgery, biases=without_bias(model, gains))
    operation.apply(pruned, surgery)
    raise_biases(pruned, surgery, gains)
    return Restored(pruned, surgery, tuple(plans))


def _deliver(
    bound: Bound, one: Chosen, tensors: Mapping[str, Tensor], model: nn.Module, wish: Wish
) -> tuple[GroupPlan, list[Gain]]:
    """One group; its float64 weights are gone when the next group is read."""
    assert isinstance(wish.restorer, Restorer)
    unit = bound.unit
    if unit.obstacle is not None:
        return _plainly(one, unit.obstacle, wish), []
    device = unit.producer.weight.device
    kept = torch.from_numpy(np.flatnonzero(one.keep)).to(device)
    removed = torch.from_numpy(np.flatnonzero(~one.keep)).to(device)
    delivery = wish.restorer.deliver(unit, kept, removed, wish.seed)
    delivery = _affordable(bound, delivery, model)
    hand = Hand(kept, removed, delivery.matrix, delivery.offset, delivery.gain)
    gained = hand_on(bound, hand, tensors)
    error = float(reconstruction_error(unit, kept, removed, delivery).mean())
    return _group_plan(one, wish.restorer.name, error, delivery.notes), gained


def by_walk(
    channels: Channels,
    chosen: list[Chosen],
    model: nn.Module,
    pruned: nn.Module,
    wish: Wish,
    samples: Samples,
) -> Restored:
    """Removes channels, then refits every layer behind them in one walk over the network.

    Args:
        channels: the dense network's groups, traced at the batch size of the samples' chunks.
        chosen: who leaves.
        model: the dense model; it is not changed.
        pruned: a copy of it, which is.
        wish: the checked call, with a regression.
        samples: what both networks are fed.

    Raises:
        ModelError: a layer meets values that are not finite, or its new weights don't fit into the
            model's half precision.
    """
    assert isinstance(wish.restorer, Regression)
    cut = Cut.of(channels, chosen)
    surgery = plan_surgery(cut, model)
    operation.apply(pruned, surgery)
    types = {name: tensor.dtype for name, tensor in named_tensors(pruned).items()}
    precision = working_precision(model)
    for tensor in _floating(pruned).values():
        tensor.data = tensor.data.to(precision)
    walk = Walk(cut, model, pruned)
    ridge = wish.restorer.ridge * (MADE_UP if samples.tokens_alone else 1)
    refit = Refit(walk, ridge, wish.seed)
    fitted, held_back = split(samples)
    walk.run(fitted.chunks, refit, self_calibrate=not samples.real, show=wish.progress)
    for name in refit.new_biases:
        types[f"{name}.bias"] = types[f"{name}.weight"]
    for name, tensor in _floating(pruned).items():
        tensor.data = rounded(name, tensor.data, types[name], "the regression").to(precision)
    measure = Measure(walk, refit.former, refit.new_biases)
    walk.run(held_back.chunks, measure, self_calibrate=False, title="measuring", show=wish.progress)
    for name, tensor in _floating(pruned).items():
        tensor.data = tensor.data.to(types[name])
    surgery = replace(surgery, biases=tuple(refit.new_biases))
    errors = measure.errors()
    groups = tuple(_walked(one, refit.fits, errors, walk.constant, wish) for one in chosen)
    if held_back is fitted:
        groups = tuple(replace(one, notes=(*one.notes, SEEN)) for one in groups)
    return Restored(pruned, surgery, groups)


SEEN = "errors are those on the inputs that were fitted to: there are too few to hold any back"


WORSE = 1.05
"""Times the error without the refit, above which it is said to have made things worse."""


def _floating(model: nn.Module) -> dict[str, Tensor]:
    tensors = named_tensors(model)
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _walked(
    one: Chosen,
    fits: Mapping[str, Fit],
    errors: Mapping[str, Errors],
    constant: Mapping[str, int],
    wish: Wish,
) -> GroupPlan:
    """A group's part in a walk: how well the layers that read it could be refitted."""
    met = [name for name in one.group.readers if name in fits]
    lost = [name for name in one.group.readers if name not in fits]
    notes = [f"not refitted: {', '.join(lost)}"] if lost else []
    notes += [
        f"{name}: {constant[name]} of its channels are constant over the inputs"
        for name in one.group.layers
        if name in constant
    ]
    notes += [note for name in met for note in fits[name].notes]
    notes += [
        f"{name}: further from the dense network than without the refit, on inputs held back "
        f"({errors[name].before:.3g} → {errors[name].after:.3g}); give real inputs, or more of them"
        for name in met
        if errors[name].after > WORSE * errors[name].before
    ]
    if not met:
        return _group_plan(one, "none", None, tuple(notes))
    worst = max((errors[name] for name in met), key=lambda error: error.after)
    solved = [fit.solution for fit in map(fits.__getitem__, met) if fit.solution is not None]
    return replace(
        _group_plan(one, wish.restorer.name, worst.after, tuple(notes)),
        unrestored_error=worst.before,
        condition=max((solution.condition for solution in solved), default=None),
        ridge=max((solution.ridge for solution in solved), default=None),
    )


def _plainly(one: Chosen, obstacle: str, wish: Wish) -> GroupPlan:
    """The group's channels leave and nothing is handed on."""
    asked = wish.restorer.name != "none"
    return _group_plan(one, "none", None, (f"pruned plainly: {obstacle}",) if asked else ())


def _group_plan(
    one: Chosen, restored_by: str, error: float | None, notes: tuple[str, ...]
) -> GroupPlan:
    return GroupPlan(
        name=one.group.name,
        kind=one.group.kind,
        producers=one.group.layers,
        consumers=one.group.readers,
        size=one.group.size,
        removed=tuple(np.flatnonzero(~one.keep).tolist()),
        restored_by=restored_by,
        reconstruction_error=error,
        notes=(*one.notes, *notes),
        predicted_error=one.predicted_error,
    )


def _affordable(bound: Bound, delivery: Delivery, model: nn.Module) -> Delivery:
    """Without its offset where a consumer can hold no bias."""
    if delivery.offset is None:
        return delivery
    for consumer in bound.unit.consumers:
        if not can_hold_bias(model, consumer.name):
            note = f"'{consumer.name}' can hold no bias: the constants of removed channels are lost"
            return replace(delivery, offset=None, notes=(*delivery.notes, note))
    return delivery

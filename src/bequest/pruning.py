"""prune(): trace → group → select → hand on → remove."""

from __future__ import annotations

import copy
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bequest._version import __version__
from bequest.artifact.fingerprint import fingerprint
from bequest.artifact.plan import GroupPlan, Plan, Refusal
from bequest.artifact.store import save
from bequest.criteria.base import Criterion
from bequest.graph import surgery as operation
from bequest.graph.chains import Bound, bind
from bequest.graph.cuts import plan_surgery
from bequest.graph.groups import Channels, group
from bequest.graph.handing import Gain, Hand, hand_on, raise_biases, without_bias
from bequest.graph.rules import read
from bequest.graph.surgery import can_hold_bias
from bequest.graph.trace import meta_copy, named_tensors, normalise_inputs, to_meta, trace
from bequest.measure.cost import Cost, cost
from bequest.measure.progress import tracked
from bequest.planning import Chosen, Kinds, Wish, leaving_channels, select
from bequest.restorers.base import Delivery, Restorer, reconstruction_error
from bequest.selection import Ratio, Scope


@dataclass(frozen=True)
class Report:
    """What pruning did, in numbers.

    Attributes:
        groups: per pruned group its kept and total channels, restorer and reconstruction error.
        refused: groups that stayed as they were although the call asked for them, and why.
        before: parameters, multiply-accumulates and bytes of the dense model.
        after: the same of the pruned model.
    """

    groups: tuple[GroupPlan, ...]
    refused: tuple[Refusal, ...]
    before: Cost
    after: Cost


@dataclass(frozen=True)
class Pruned:
    """A pruned network.

    Attributes:
        model: a module of the same class with fewer channels, in the mode of the original.
        plan: what left, what was handed on, what was refused and why.
        report: kept and total channels and reconstruction error per group; cost before and after.
    """

    model: nn.Module
    plan: Plan
    report: Report

    def save(self, directory: str | Path) -> None:
        """Writes ``model.safetensors`` and ``plan.json`` into a new or empty folder.

        Raises:
            UsageError: the folder has files in it.
        """
        save(directory, self.model, self.plan)


def prune(
    model: nn.Module,
    example_inputs: Any,
    ratio: Ratio = 0.5,
    *,
    groups: Kinds = "inner",
    criterion: str | Criterion = "l2",
    scope: Scope = "group",
    restorer: str | Restorer = "lbyl",
    round_to: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> Pruned:
    """Removes channels of a trained network for real and hands what they knew to those that stay.

    No training and no data. The given model is not changed.

    Args:
        model: a trained module; its weights are read in evaluation mode.
        example_inputs: a tensor, tuple or dict; only shape, dtype and device matter.
        ratio: share of the channels that each group loses, in [0, 1); or shell patterns on
            producers' qualified names → shares: the first match counts, no match = not pruned.
        groups: "inner" (between two layers of one branch) or "all" (residual streams too).
        criterion: who leaves; a name or a config object.
        scope: channels are ranked within their "group", or over all groups ("global").
        restorer: what they leave behind; a name or a config object.
        round_to: widths become multiples of this in groups of at least twice as many channels.
        seed: of everything random.
        progress: show a progress bar on a terminal.

    Returns:
        The pruned model with its plan and report.

    Raises:
        UsageError: an argument is wrong.
        ModelError: the model is refused by name or can't be exported.
    """
    wish = Wish.checked(
        ratio=ratio,
        groups=groups,
        criterion=criterion,
        scope=scope,
        restorer=restorer,
        round_to=round_to,
        seed=seed,
        progress=progress,
    )
    network = trace(model, example_inputs)
    channels = group(read(network))
    dense = named_tensors(model)
    chosen, refused = select(model, example_inputs, channels, dense, wish)
    pruned = copy.deepcopy(model)
    group_plans, gains = _hand_on(channels, chosen, dense, pruned, wish)
    surgery = plan_surgery(channels, leaving_channels(channels, chosen), model)
    surgery = replace(surgery, biases=without_bias(model, gains))
    operation.apply(pruned, surgery)
    raise_biases(pruned, surgery, gains)
    plan = Plan(
        architecture=fingerprint(model),
        recipe=wish.to_json(),
        versions={
            "bequest": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        groups=group_plans,
        refused=refused,
        surgery=surgery,
    )
    costs = (_cost(one, example_inputs) for one in (model, pruned))
    return Pruned(pruned, plan, Report(group_plans, refused, *costs))


def _hand_on(
    channels: Channels,
    chosen: list[Chosen],
    dense: Mapping[str, Tensor],
    pruned: nn.Module,
    wish: Wish,
) -> tuple[tuple[GroupPlan, ...], list[Gain]]:
    """Changes consumers' weights in ``pruned``; every number that is read is a dense one.

    Returns:
        What happened to each group, and what consumers' biases gain.
    """
    tensors = named_tensors(pruned)
    plans: list[GroupPlan] = []
    gains: list[Gain] = []
    for one in tracked(chosen, "handing on", chosen, wish.progress):
        bound = bind(channels, one.group, dense)
        device = bound.unit.producers[0].weight.device
        kept = torch.from_numpy(np.flatnonzero(one.keep)).to(device)
        removed = torch.from_numpy(np.flatnonzero(~one.keep)).to(device)
        if bound.unit.obstacle is not None:
            plans.append(_plainly(one, removed, bound.unit.obstacle, wish))
            continue
        delivery = wish.restorer.deliver(bound.unit, kept, removed, wish.seed)
        delivery = _affordable(bound, delivery, pruned)
        hand = Hand(kept, removed, delivery.matrix, delivery.offset, delivery.gain)
        gains.extend(hand_on(bound, hand, tensors))
        error = float(reconstruction_error(bound.unit, kept, removed, delivery).mean())
        notes = (*one.notes, *delivery.notes)
        plans.append(_group_plan(one, removed, wish.restorer.name, error, notes))
    return tuple(plans), gains


def _plainly(one: Chosen, removed: Tensor, obstacle: str, wish: Wish) -> GroupPlan:
    """The group's channels leave and nothing is handed on."""
    asked = wish.restorer.name != "none"
    notes = (*one.notes, f"pruned plainly: {obstacle}") if asked else one.notes
    return _group_plan(one, removed, "none", None, notes)


def _group_plan(
    one: Chosen, removed: Tensor, restored_by: str, error: float | None, notes: tuple[str, ...]
) -> GroupPlan:
    return GroupPlan(
        name=one.group.name,
        kind=one.group.kind,
        producers=one.group.layers,
        consumers=one.group.readers,
        size=one.group.size,
        removed=tuple(removed.tolist()),
        restored_by=restored_by,
        reconstruction_error=error,
        notes=notes,
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


def _cost(model: nn.Module, example_inputs: Any) -> Cost:
    """Counted on a copy without data where the model runs without."""
    try:
        args, kwargs = to_meta(normalise_inputs(example_inputs))
        return cost(meta_copy(model), kwargs or args)
    except Exception:
        return cost(model, example_inputs)

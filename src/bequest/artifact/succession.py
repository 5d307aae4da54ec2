"""Plans of networks that were pruned one step after the other, as one plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from bequest.artifact.plan import GroupPlan, Plan
from bequest.surgery.composition import below, composed, qualified
from bequest.surgery.operation import Surgery

EARLIER = "earlier"
"""The entry of a recipe that holds the recipes of earlier steps, the first one first."""


def succeeded(
    earlier: Mapping[str, Plan], later: Plan, architecture: str, made: Collection[str]
) -> Plan:
    """The plan that does what earlier plans did to parts of a network, and then ``later``.

    Channels of a group that lost some in several steps are counted as in the dense network. Form,
    recipe, refusals and versions are those of the last step; its recipe holds those of the others.

    Args:
        earlier: names of parts ('' = the whole network) → the plans that led to them.
        later: of the network with these parts.
        architecture: fingerprint of the network whose parts are still dense.
        made: every name of the biases that the earlier plans made.
    """
    surgery = Surgery((), (), ())
    groups: dict[str, GroupPlan] = {}
    recipes: list[dict[str, Any]] = []
    for part, plan in earlier.items():
        surgery = composed(surgery, below(plan.surgery, part), ())
        groups |= {one.name: one for one in (_below(group, part) for group in plan.groups)}
        before, recipe = _parted(plan.recipe)
        recipes += [{**one, "part": part} if part else one for one in (*before, recipe)]
    for group in later.groups:
        groups[group.name] = _joined(groups.get(group.name), group)
    return dataclasses.replace(
        later,
        architecture=architecture,
        recipe={**later.recipe, EARLIER: recipes},
        groups=tuple(groups.values()),
        surgery=composed(surgery, later.surgery, made),
    )


def _parted(recipe: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The recipes of earlier steps, and the last one without them."""
    return list(recipe.get(EARLIER, [])), {k: v for k, v in recipe.items() if k != EARLIER}


def _below(group: GroupPlan, part: str) -> GroupPlan:
    """The group of a part, by the names that the whole network has."""
    return dataclasses.replace(
        group,
        name=qualified(part, group.name),
        producers=tuple(qualified(part, name) for name in group.producers),
        consumers=tuple(qualified(part, name) for name in group.consumers),
    )


def _joined(before: GroupPlan | None, after: GroupPlan) -> GroupPlan:
    """What two steps did to one group, in the channels that it had at first."""
    if before is None:
        return after
    gone = set(before.removed)
    kept = [channel for channel in range(before.size) if channel not in gone]
    error = before.reconstruction_error
    note = f"pruned before from {before.size} to {before.kept} channels: {before.restored_by}" + (
        "" if error is None else f", error {error:.3g}"
    )
    notes = (note, *before.notes, *after.notes)
    if len(kept) != after.size or before.producers != after.producers:
        return dataclasses.replace(
            after, notes=(*notes, "channels are counted as the last step found them")
        )
    removed = (*before.removed, *(kept[channel] for channel in after.removed))
    return dataclasses.replace(
        after, size=before.size, removed=tuple(sorted(removed)), notes=tuple(dict.fromkeys(notes))
    )

"""Rules for intervals where many boxes of inputs are looked at at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from bequest.robust.impact import ranged, twin_of
from bequest.robust.intervals import Interval
from bequest.robust.rules import Rule
from bequest.robust.twins import Twin, Weights


def ruled(node: fx.Node, rule: Rule, args: list[Any], changes: bool) -> tuple[Any, Any, Any]:
    """Intervals of the result in both networks and of the change; None where nothing changes."""
    first = rule.value(node, *ranged(side_of(args, "first")))
    if not changes:
        return first, None, None
    second = rule.value(node, *ranged(side_of(args, "second")))
    return first, second, rule.change(node, *ranged(args))


def side_of(args: Any, side: str) -> Any:
    """Operands as they are in one of the networks."""

    def pick(one: Any) -> Any:
        return getattr(one, side) if isinstance(one, Twin | Weights) else one

    return fx.node.map_aggregate(args, pick)


def box_by_box(
    node: fx.Node, rule: Rule, args: list[Any], twins: list[Twin], changes: bool
) -> tuple[Any, Any, Any]:
    """The same for operands with boxes in front, all boxes in one pass."""
    forms: list[int | None] = []

    def step(*ends: Tensor) -> list[Tensor]:
        feeds = iter(ends)
        held: Any = {id(one): _rebuilt(one, feeds) for one in twins}
        operands: Any = fx.node.map_aggregate(args, lambda one: held.get(id(one), one))
        found = ruled(node, rule, operands, changes)
        forms[:] = [len(one) if isinstance(one, tuple) else one and 0 for one in found]
        return [end for one in found for part in _parts(one) for end in (part.lower, part.upper)]

    ends = [end for one in twins for x in _kinds(one) for end in (x.lower, x.upper)]
    made = iter(torch.func.vmap(step)(*ends))

    def taken(form: int | None) -> Any:
        if form is None:
            return None
        parts = [Interval(next(made), next(made)) for _ in range(form or 1)]
        return tuple(parts) if form else parts[0]

    first, second, change = (taken(form) for form in forms)
    return first, second, change


def _kinds(twin: Twin) -> list[Interval]:
    return [twin.first] if twin.change is None else [twin.first, twin.second, twin.change]


def _rebuilt(like: Twin, ends: Iterator[Tensor]) -> Twin:
    parts = [Interval(next(ends), next(ends)) for _ in _kinds(like)]
    return Twin(parts[0], parts[0], None) if len(parts) == 1 else Twin(*parts)


def _parts(found: Any) -> list[Interval]:
    if found is None:
        return []
    return list(found) if isinstance(found, tuple) else [found]


def over(found: Any, boxes: int) -> Any:
    """What holds in one box, for each of many."""
    if found is None:
        return None
    if isinstance(found, tuple):
        return tuple(over(one, boxes) for one in found)
    return Interval(*(end.expand(boxes, *end.shape) for end in (found.lower, found.upper)))


def completed(node: fx.Node, first: Any, second: Any, change: Any) -> Any:
    """The twin, or a tuple of them with None for results that no rule says anything of."""
    several = isinstance(node.meta["val"], tuple | list)
    if not several:
        return twin_of(first, second, change)
    found = twin_of(first, second, change)
    return (*found, *(None,) * (len(node.meta["val"]) - len(found)))

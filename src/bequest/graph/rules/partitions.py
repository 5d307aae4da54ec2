"""Parts of a dimension of channels: whether they are equal, and keep equal numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from bequest.graph.geometry import arguments
from bequest.graph.ledger import Labels
from bequest.graph.rules.base import Step


def in_unequal_parts(node: fx.Node, dim: int) -> bool:
    """Whether a slice is one of several that share a dimension out, some wider than others.

    Queries of many heads, keys and values of few lie so in one matrix: half of it may be queries.
    """
    source: Any = node.args[0]
    size = source.meta["val"].shape[dim]
    ranges = set()
    for user in source.users:
        if user.target is node.target:
            given = arguments(user)
            if int(given["dim"]) % source.meta["val"].ndim == dim and given["step"] == 1:
                ranges.add(slice(given["start"], given["end"]).indices(size)[:2])
    ordered = sorted(ranges)
    tiled = [0, *(stop for _, stop in ordered)] == [*(start for start, _ in ordered), size]
    return tiled and len({stop - start for start, stop in ordered}) > 1


def partition(
    step: Step, labels: Labels, start: int, parts: Sequence[Labels], *, alone: bool = True
) -> None:
    """Parts of a dimension, from ``start`` on, that are tensors of their own.

    A part that stands ``alone`` and divides the dimension evenly is one of equal parts.
    """
    width = len(parts[0])
    equal = alone and all(len(part) == width for part in parts)
    if equal and len(labels) % width == 0 and start % width == 0:
        step.ledger.balance(labels, len(labels) // width, step.place, firm=False)
    for part in parts:
        step.ledger.segment(part)
    step.ledger.literal(labels, step.place)


def interleaved(step: Step, labels: Labels, part: range) -> bool:
    """Every k-th index, from one of the first k to the end: runs of k channels leave together.

    So what is left lies as before, and the step stays what it is. False of other parts.
    """
    if part.start >= part.step or part[-1] + part.step < len(labels):
        return False
    whole = len(labels) // part.step * part.step
    runs, rest = labels[:whole].reshape(-1, part.step), labels[whole:]
    step.ledger.tie(runs[:, :1], runs)
    if part.start < len(rest):  # one of the rest is taken: who leaves alone gives another its place
        step.ledger.tie(rest[:1], rest)
    step.ledger.segment(labels[part.start :: part.step])
    return True

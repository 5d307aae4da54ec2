"""Rules for operators that repeat what they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from bequest.graph.ledger import Labels, Layout
from bequest.graph.rules.base import Step, rule, wall
from bequest.graph.rules.widths import Narrowed, widths


@rule("repeat", "tile", role="linear")
def repeat(step: Step) -> Layout:
    """The whole tensor, so many times along each dimension; dimensions in front may be new."""
    data = step.operands()[0]
    new = step.ndim - len(data.meta["val"].shape)
    before = (*(1,) * new, *data.meta["val"].shape)
    held = (*(None,) * new, *step.layout(data).dims)
    sizes = zip(held, before, step.shape, strict=True)
    return step.layout(data).with_dims(_repeated(step, *each, whole=True) for each in sizes)


@rule("repeat_interleave", role="linear")
def repeat_interleave(step: Step) -> Layout | tuple[Layout, ...]:
    """Every index of a dimension so many times in a row."""
    data, times, dim = step.operands()[0], step.arg(1, "repeats"), step.arg(2, "dim")
    if not isinstance(times, int) or dim is None:
        return wall(step)
    layout, at = step.layout(data), int(dim) % step.ndim
    labels = _repeated(
        step, layout.dims[at], data.meta["val"].shape[at], step.shape[at], whole=False
    )
    return layout.with_dims((*layout.dims[:at], labels, *layout.dims[at + 1 :]))


def _repeated(
    step: Step, labels: Labels | None, before: int, after: int, *, whole: bool
) -> Labels | None:
    """The labels of a dimension whose indices are repeated, as a ``whole`` or one by one."""
    if labels is None:
        return step.ledger.loose(after) if before == 1 < after else None
    times = after // before if before else 1
    return np.tile(labels, times) if whole else np.repeat(labels, times)


@widths("repeat", "tile")
def times(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """How often each dimension is repeated."""
    source: Any = node.args[0]
    after, before = narrowed.shape(node), narrowed.shape(source)
    before = [1] * (len(after) - len(before)) + before
    return {1: [new // old if old else 1 for new, old in zip(after, before, strict=True)]}

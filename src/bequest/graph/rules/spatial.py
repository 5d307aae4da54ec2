"""Rules for operators that work within each channel: pooling, resizing, padding."""

from __future__ import annotations

import numpy as np

from bequest.graph.ledger import Layout
from bequest.graph.rules.base import Step, rule

_SPATIAL = {"1d": 1, "2d": 2, "3d": 3}


@rule(
    *(f"{kind}_pool{n}d" for kind in ("avg", "adaptive_avg", "_adaptive_avg") for n in (1, 2, 3)),
    role="linear",
)
def average_pool(step: Step) -> Layout:
    """Means over windows; with padding that counts, borders see fewer than the whole window."""
    padding = step.arg(3, "padding", 0)
    counted = step.arg(5, "count_include_pad", True)
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    if padded and counted and "adaptive" not in str(step.node.target):
        step.reading.roles[step.node] = "pad"
    return _within(step)[0]


@rule(
    *(f"{kind}_pool{n}d" for kind in ("max", "adaptive_max") for n in (1, 2, 3)),
    *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
    role="monotone",
)
def max_pool(step: Step) -> Layout | tuple[Layout, ...]:
    """Maxima over windows (padded with minus infinity)."""
    layouts = _within(step)
    return layouts if isinstance(step.node.meta["val"], tuple | list) else layouts[0]


@rule(
    *(f"{kind}{n}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
    role="linear",
)
def upsample(step: Step) -> Layout:
    """Resizing: weights within a channel that sum to one."""
    return _within(step)[0]


@rule("pad", "constant_pad_nd", role="pad")
def pad(step: Step) -> Layout:
    """Padding of space, or of the channels themselves (zero-padded shortcuts).

    Channels that the padding adds can't leave: their number stands in the code.
    """
    data, amounts = step.arg(0, "input"), list(step.arg(1, "pad"))
    mode, value = step.arg(2, "mode", "constant"), step.arg(3, "value", 0.0)
    if str(step.node.target).startswith("aten.constant_pad_nd"):
        mode, value = "constant", step.arg(2, "value", 0.0)
    if mode != "constant":
        step.reading.roles[step.node] = "linear"
    elif value:
        step.reading.roles[step.node] = "join"
    layout = step.layout(data)
    dims = list(layout.dims)
    for index, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        dim = len(dims) - 1 - index
        labels = dims[dim]
        if labels is None or before == after == 0:
            continue
        step.reading.roles[step.node] = "join"
        if mode != "constant" or min(before, after) < 0:
            step.freeze(labels, "is padded with its neighbours or cropped")
            dims[dim] = None
            continue
        reason = f"added by padding, in a number that stands in the code ({step.place})"
        edge = step.ledger.rest(before + after, reason)
        dims[dim] = np.concatenate([edge[:before], labels, edge[before:]])
    return layout.with_dims(dims)


@rule("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", role="linear")
@rule("replication_pad1d", "replication_pad2d", "replication_pad3d", role="linear")
def mirror(step: Step) -> Layout:
    """Padding of space with values from inside."""
    return _within(step)[0]


def _within(step: Step) -> tuple[Layout, ...]:
    """Layouts of an operator whose last 1, 2 or 3 dimensions are space."""
    name = str(step.node.target)
    count = next(n for suffix, n in _SPATIAL.items() if suffix in name)
    layout = step.layout(step.arg(0, "input"))
    first = len(layout.dims) - count
    for labels in layout.dims[first:]:
        step.freeze(labels, "is a dimension that the window slides over")
    result = layout.with_dims((*layout.dims[:first], *(None,) * count))
    return (result, result)

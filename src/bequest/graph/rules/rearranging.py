"""Rules for operators that move elements between channels and space."""

from __future__ import annotations

from math import prod

import numpy as np

from bequest.graph.ledger import Layout
from bequest.graph.rules.base import Step, rule


@rule("pixel_unshuffle", role="linear")
def pixel_unshuffle(step: Step) -> Layout:
    """(..., C, H, W) to (..., C·r², H/r, W/r): a channel is laid out over r² in a row."""
    return _spread(step, int(step.arg(1, "downscale_factor")) ** 2)


@rule("pixel_shuffle", role="linear")
def pixel_shuffle(step: Step) -> Layout:
    """(..., C·r², H, W) to (..., C, H·r, W·r): r² in a row leave together."""
    return _gathered(step, int(step.arg(1, "upscale_factor")) ** 2)


@rule("im2col", role="linear")
def im2col(step: Step) -> Layout:
    """(..., C, H, W) to (..., C·k, places): each channel's k positions of a window in a row."""
    if any(step.arg(3, "padding")):
        step.reading.roles[step.node] = "pad"
    return _spread(step, prod(step.arg(1, "kernel_size")))


@rule("col2im", role="join")
def col2im(step: Step) -> Layout:
    """(..., C·k, places) to (..., C, H, W): windows are added up, k positions leave together."""
    return _gathered(step, prod(step.arg(2, "kernel_size")))


@rule("channel_shuffle", "native_channel_shuffle", role="linear")
def channel_shuffle(step: Step) -> Layout:
    """Channel j of each of the blocks in turn: what lies at one place of them leaves together."""
    layout = step.layout(step.arg(0, "self"))
    labels = layout.dims[1]
    if labels is None:
        return layout
    blocks = labels.reshape(int(step.arg(1, "groups")), -1)
    step.ledger.tie(blocks[:1], blocks)
    return layout.with_dims((layout.dims[0], blocks.T.ravel(), *layout.dims[2:]))


@rule("unfold", role="linear")
def unfold(step: Step) -> Layout:
    """Windows along a dimension, whose places lie in a new last one."""
    layout = step.layout(step.arg(0, "self"))
    if not layout.dims:
        return step.fixed()
    dim = int(step.arg(1, "dimension")) % len(layout.dims)
    step.freeze(layout.dims[dim], "is a dimension that the window slides over")
    return layout.with_dims((*layout.dims[:dim], None, *layout.dims[dim + 1 :], None))


def _spread(step: Step, times: int) -> Layout:
    """Channels of a map, each of which becomes ``times`` in a row."""
    layout = step.layout(step.operands()[0])
    channel = len(layout.dims) - 3
    for labels in layout.dims[channel + 1 :]:
        step.freeze(labels, "is a dimension of space")
    labels = layout.dims[channel]
    spread = None if labels is None else np.repeat(labels, times)
    return layout.with_dims((*layout.dims[:channel], spread, *(None,) * (step.ndim - channel - 1)))


def _gathered(step: Step, times: int) -> Layout:
    """Channels of which ``times`` in a row become one of a map."""
    layout = step.layout(step.operands()[0])
    channel = step.ndim - 3
    for labels in layout.dims[channel + 1 :]:
        step.freeze(labels, "is a dimension of space")
    labels = layout.dims[channel]
    if labels is not None:
        rows = labels.reshape(-1, times)
        step.ledger.tie(rows[:, :1], rows)
        labels = rows[:, 0]
    return layout.with_dims((*layout.dims[:channel], labels, None, None))

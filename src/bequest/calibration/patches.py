"""What a layer reads for each of its outputs: the inputs under its kernel, as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bequest.graph.geometry import Geometry


def patches(
    geometry: Geometry,
    x: Tensor,
    shape: Sequence[int],
    places: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """The rows that a layer's weight is multiplied with.

    Args:
        geometry: of a linear layer, or a convolution, plain or transposed, of any dimension,
            stride, padding, dilation and groups.
        x: its input, (batch, channels, *space) or, for a linear layer, (batch, *tokens, features);
            without the batch it is one sample.
        shape: that of its output.
        places: which output places (of space, or tokens, flattened) are wanted; None = all.
        shift: (channels,), taken off every input, those that are padding too; None = nothing.

    Returns:
        (g, m, d): g groups, m = batch × places, d = kernel positions × channels of a group, as in
        :func:`weight_rows`. Zeros stand where a place reads padding or, in a transposed
        convolution, where the stride skips it. Other padding than with zeros is expected to be an
        operator of its own before the layer.
    """
    if geometry.linear:
        tokens = _tokens(x, places)[None]
        return tokens if shift is None else tokens - shift
    x, shape = _batched(geometry, x), shape[-len(geometry.kernel) :]
    batch, channels = x.shape[:2]
    size = math.prod(x.shape[2:])
    reads = _reads(geometry, x.shape[2:], shape, x.device)
    reads = (reads if places is None else reads[places]).flatten()
    # One row of channels per input position, and one of zeros: the gather moves whole rows.
    table = x.new_zeros(batch * size + 1, channels)
    filled, values = table[:-1].view(batch, size, channels), x.flatten(2).transpose(1, 2)
    if shift is None:
        filled.copy_(values)
    else:
        torch.sub(values, shift, out=filled)
        table[-1] = -shift
    firsts = size * torch.arange(batch, device=x.device)[:, None]
    rows = table.index_select(0, torch.where(reads < 0, batch * size, firsts + reads).flatten())
    grouped = rows.view(
        -1, math.prod(geometry.kernel), geometry.groups, channels // geometry.groups
    )
    return grouped.movedim(2, 0).flatten(2)


def outputs_at(geometry: Geometry, y: Tensor, places: Tensor | None = None) -> Tensor:
    """A layer's outputs in the rows of :func:`patches`: (g, m, o), o outputs of a group."""
    if geometry.linear:
        return _tokens(y, places)[None]
    flat = _batched(geometry, y).flatten(2)
    chosen = flat if places is None else flat[:, :, places]
    grouped = chosen.reshape(len(flat), geometry.groups, -1, chosen.shape[2])
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)


def channel_means(geometry: Geometry, x: Tensor) -> Tensor:
    """Mean of each input channel, (channels,), in float64."""
    if geometry.linear:
        return x.flatten(0, -2).mean(0, dtype=torch.float64) if x.ndim > 1 else x.double()
    return _batched(geometry, x).flatten(2).mean((0, 2), dtype=torch.float64)


def place_count(geometry: Geometry, shape: Sequence[int]) -> int:
    """Number of output places of one sample, from the output's shape."""
    return math.prod(shape[1:-1] if geometry.linear else shape[-len(geometry.kernel) :])


def weight_rows(geometry: Geometry, weight: Tensor) -> Tensor:
    """The weight as (g, o, d): one row per output, times a row of :func:`patches` = the output."""
    if geometry.linear:
        return (weight.t() if geometry.transposed else weight)[None]
    grouped = weight.reshape(geometry.groups, -1, weight.shape[1], math.prod(geometry.kernel))
    if geometry.transposed:
        grouped = grouped.transpose(1, 2)
    return grouped.transpose(2, 3).flatten(2)


def channel_major(geometry: Geometry, length: int) -> Tensor:
    """Where the inputs in the order channels × positions lie in the rows of :func:`patches`.

    That is the order of ``weight.flatten(1)``, but for transposed convolutions.

    Args:
        geometry: of the layer.
        length: d, the number of inputs of each output.

    Returns:
        int64 (d,).
    """
    order = torch.arange(length, device="cpu")
    return order.view(math.prod(geometry.kernel), -1).T.flatten()


def spread_out(geometry: Geometry, channels: Tensor) -> Tensor:
    """A number per input channel for each input in the order channels × positions: (g, d)."""
    return channels.view(geometry.groups, -1).repeat_interleave(math.prod(geometry.kernel), dim=1)


def as_weight(geometry: Geometry, matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """A matrix (g, o, d), d in the order channels × positions, in the shape of the weight."""
    if geometry.transposed:
        g, o, _ = matrix.shape
        matrix = matrix.view(g, o, -1, math.prod(geometry.kernel)).transpose(1, 2)
    return matrix.reshape(tuple(shape))


def _batched(geometry: Geometry, x: Tensor) -> Tensor:
    """(batch, channels, *space), also where there is a single sample without a batch."""
    return x if x.ndim == len(geometry.kernel) + 2 else x[None]


def _tokens(values: Tensor, places: Tensor | None) -> Tensor:
    if values.ndim == 1:
        values = values[None]
    tokens = values.flatten(1, -2) if values.ndim > 2 else values[:, None]
    return (tokens if places is None else tokens[:, places]).flatten(0, 1)


def _reads(
    geometry: Geometry, inputs: Sequence[int], outputs: Sequence[int], device: torch.device
) -> Tensor:
    """Input position under each kernel position of each place, −1 = none: int64 (places, k).

    Output p of a convolution reads input p·stride − padding + k·dilation. A transposed one is the
    reverse: input q writes to output q·stride − padding + k·dilation.
    """
    total = torch.zeros((1, 1), dtype=torch.int64, device=device)
    inside = torch.ones((1, 1), dtype=torch.bool, device=device)
    sizes = zip(
        inputs, outputs, geometry.kernel, geometry.stride, geometry.dilation, geometry.before,
        strict=True,
    )  # fmt: skip
    for width, count, kernel, stride, dilation, before in sizes:
        place = torch.arange(count, device=device)[:, None]
        reach = torch.arange(kernel, device=device) * dilation - before
        if geometry.transposed:
            met = (place - reach) % stride == 0
            position = (place - reach).div(stride, rounding_mode="floor")
        else:
            position = place * stride + reach
            met = torch.ones_like(position, dtype=torch.bool)
        met &= (position >= 0) & (position < width)
        total = _crossed(total * width, position, torch.add)
        inside = _crossed(inside, met, torch.logical_and)
    return torch.where(inside, total, -1)


def _crossed(a: Tensor, b: Tensor, join: Any) -> Tensor:
    """``join`` of (p, k) and (q, l) for all pairs of places and of positions: (p·q, k·l)."""
    joined: Tensor = join(a[:, None, :, None], b[None, :, None, :])
    return joined.flatten(2).flatten(0, 1)

"""What a layer reads for each of its outputs: the inputs under its kernel, as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def patches(
    layer: nn.Module, x: Tensor, shape: Sequence[int], places: Tensor | None = None
) -> Tensor:
    """The rows that a layer's weight is multiplied with.

    Args:
        layer: a linear layer, or a convolution, plain or transposed, of any dimension, stride,
            padding, dilation and groups.
        x: its input, (batch, channels, *space) or, for a linear layer, (batch, *tokens, features).
        shape: that of its output.
        places: which output places (of space, or tokens, flattened) are wanted; None = all.

    Returns:
        (g, m, d): g groups, m = batch × places, d = kernel positions × channels of a group, as in
        :func:`weight_rows`. Zeros stand where a place reads padding or, in a transposed
        convolution, where the stride skips it. Other padding than with zeros is expected to be an
        operator of its own before the layer.
    """
    if isinstance(layer, nn.Linear):
        return _tokens(x, places)[None]
    assert isinstance(layer, _ConvNd)
    batch, channels = x.shape[:2]
    size = math.prod(x.shape[2:])
    reads = _reads(layer, x.shape[2:], shape[2:], x.device)
    reads = (reads if places is None else reads[places]).flatten()
    # One row of channels per input position, and one of zeros: the gather moves whole rows.
    table = x.new_zeros(batch * size + 1, channels)
    table[:-1].view(batch, size, channels).copy_(x.flatten(2).transpose(1, 2))
    firsts = size * torch.arange(batch, device=x.device)[:, None]
    rows = table.index_select(0, torch.where(reads < 0, batch * size, firsts + reads).flatten())
    positions = math.prod(layer.kernel_size)
    grouped = rows.view(-1, positions, layer.groups, channels // layer.groups)
    return grouped.movedim(2, 0).flatten(2)


def outputs_at(layer: nn.Module, y: Tensor, places: Tensor | None = None) -> Tensor:
    """A layer's outputs in the rows of :func:`patches`: (g, m, o), o outputs of a group."""
    if isinstance(layer, nn.Linear):
        return _tokens(y, places)[None]
    assert isinstance(layer, _ConvNd)
    flat = y.flatten(2)
    chosen = flat if places is None else flat[:, :, places]
    grouped = chosen.reshape(len(y), layer.groups, -1, chosen.shape[2])
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)


def place_count(layer: nn.Module, shape: Sequence[int]) -> int:
    """Number of output places of one sample, from the output's shape."""
    return math.prod(shape[1:-1] if isinstance(layer, nn.Linear) else shape[2:])


def row_length(layer: nn.Module) -> int:
    """Number of inputs of each output: d of :func:`patches`."""
    return weight_rows(layer).shape[2]


def weight_rows(layer: nn.Module) -> Tensor:
    """The weight as (g, o, d): one row per output, times a row of :func:`patches` = the output."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.Linear):
        return weight[None]
    return _as_matrix(layer, weight).transpose(2, 3).flatten(2)


def channel_major(layer: nn.Module) -> Tensor:
    """Where the inputs in the order channels × positions lie in the rows of :func:`patches`.

    That is the order of ``weight.flatten(1)``, but for transposed convolutions.

    Returns:
        int64 (d,).
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    positions = 1 if isinstance(layer, nn.Linear) else weight[0, 0].numel()
    order = torch.arange(row_length(layer), device=weight.device)
    return order.view(positions, -1).T.flatten()


def as_weight(layer: nn.Module, matrix: Tensor) -> Tensor:
    """A matrix (g, o, d), d in the order channels × positions, in the shape of the weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, _ConvTransposeNd):
        g, o, _ = matrix.shape
        matrix = matrix.view(g, o, -1, weight[0, 0].numel()).transpose(1, 2)
    return matrix.reshape(weight.shape)


def _as_matrix(layer: Any, weight: Tensor) -> Tensor:
    """(groups, outputs of a group, channels of a group, positions)."""
    grouped = weight.view(layer.groups, -1, weight.shape[1], weight[0, 0].numel())
    return grouped.transpose(1, 2) if isinstance(layer, _ConvTransposeNd) else grouped


def _tokens(values: Tensor, places: Tensor | None) -> Tensor:
    tokens = values.flatten(1, -2) if values.ndim > 2 else values[:, None]
    return (tokens if places is None else tokens[:, places]).flatten(0, 1)


def _reads(
    layer: _ConvNd, inputs: Sequence[int], outputs: Sequence[int], device: torch.device
) -> Tensor:
    """Input position under each kernel position of each place, −1 = none: int64 (places, k).

    Output p of a convolution reads input p·stride − padding + k·dilation. A transposed one is the
    reverse: input q writes to output q·stride − padding + k·dilation.
    """
    total = torch.zeros((1, 1), dtype=torch.int64, device=device)
    inside = torch.ones((1, 1), dtype=torch.bool, device=device)
    geometry = zip(
        inputs, outputs, layer.kernel_size, layer.stride, layer.dilation, _before(layer),
        strict=True,
    )  # fmt: skip
    for width, count, kernel, stride, dilation, before in geometry:
        place = torch.arange(count, device=device)[:, None]
        reach = torch.arange(kernel, device=device) * dilation - before
        if isinstance(layer, _ConvTransposeNd):
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


def _before(layer: _ConvNd) -> list[int]:
    """Zeros before the first input, per dimension."""
    if layer.padding_mode != "zeros" or layer.padding == "valid":
        return [0] * len(layer.kernel_size)
    if layer.padding == "same":
        reach = zip(layer.dilation, layer.kernel_size, strict=True)
        return [dilation * (kernel - 1) // 2 for dilation, kernel in reach]
    return [int(amount) for amount in layer.padding]

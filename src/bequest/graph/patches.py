"""What a layer reads for each of its outputs: the inputs under its kernel, as rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from torch import Tensor, nn


def patches(layer: nn.Module, x: Tensor, places: Tensor | None = None) -> Tensor:
    """The rows that a layer's weight is multiplied with.

    Args:
        layer: a linear layer or a convolution of any dimension, stride, padding, dilation, groups.
        x: its input, (batch, channels, *space) or, for a linear layer, (batch, *tokens, features).
        places: which output places (of space, or tokens, flattened) are wanted; None = all.

    Returns:
        (g, m, d): g groups, m = batch × places, d = channels of a group × kernel positions, in the
        order of ``weight.flatten(1)``. Other padding than with zeros is expected to be an operator
        of its own before the layer.
    """
    if isinstance(layer, nn.Linear):
        tokens = x.flatten(1, -2) if x.ndim > 2 else x[:, None]
        return (tokens if places is None else tokens[:, places]).flatten(0, 1)[None]
    windows = _windows(layer, x)
    space = (windows.ndim - 2) // 2
    sizes = windows.shape[2 : 2 + space]
    wanted = torch.arange(sizes.numel(), device=x.device) if places is None else places
    at: tuple[Any, ...] = (slice(None), slice(None), *torch.unravel_index(wanted, sizes))
    chosen = windows[at]
    # (batch, channels, places, *kernel) → (groups, batch·places, channels of a group·kernel)
    grouped = chosen.reshape(len(x), _groups(layer), -1, *chosen.shape[2:])
    return grouped.transpose(2, 3).movedim(1, 0).flatten(3).flatten(1, 2)


def outputs_at(layer: nn.Module, y: Tensor, places: Tensor | None = None) -> Tensor:
    """A layer's outputs in the rows of :func:`patches`: (g, m, o), o outputs of a group."""
    if isinstance(layer, nn.Linear):
        return patches(layer, y, places)
    flat = y.flatten(2)
    chosen = flat if places is None else flat[:, :, places]
    grouped = chosen.reshape(len(y), _groups(layer), -1, chosen.shape[2])
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)


def place_count(layer: nn.Module, y: Tensor) -> int:
    """Number of output places of one sample."""
    features = y.shape[-1] if isinstance(layer, nn.Linear) else y.shape[1]
    return y.numel() // (len(y) * features)


def _groups(layer: nn.Module) -> int:
    assert isinstance(layer, nn.modules.conv._ConvNd)
    return layer.groups


def _windows(layer: Any, x: Tensor) -> Tensor:
    """A view of the padded input: (batch, channels, *places, *kernel)."""
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if layer.padding_mode == "zeros":
        x = F.pad(x, _padding(layer, len(kernel)))
    sizes = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    steps = x.stride()
    jumps = [step * s for step, s in zip(steps[2:], stride, strict=True)]
    gaps = [step * d for step, d in zip(steps[2:], dilation, strict=True)]
    return x.as_strided((*x.shape[:2], *sizes, *kernel), (*steps[:2], *jumps, *gaps))


def _padding(layer: Any, space: int) -> list[int]:
    """As F.pad takes it: last dimension first, before and after."""
    if layer.padding == "valid":
        return [0] * (2 * space)
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return [amount for amount in reversed(layer.padding) for _ in range(2)]

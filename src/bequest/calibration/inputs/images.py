"""What drawn images share: where they are drawn, colours that correlate, a scale.

Every drawing takes (count, shape, generator, value_range): the number of images, their shape
(channels, *space), a CPU generator, and the lowest and highest value of real images, or None where
that is unknown. It returns float32 (count, *shape): within the range, or with zero mean and unit
variance per channel. What matters to a network behind batch norms is only how neighbouring pixels
and channels correlate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Range = tuple[float, float] | None
Drawing = Callable[[int, tuple[int, ...], torch.Generator, Range], Tensor]

CPU: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
"""Where and what is drawn, whatever the defaults are."""


def coloured(values: Tensor) -> Tensor:
    """Correlates independent channels (last dimension) as colours are: mostly brightness."""
    brightness: Tensor = values.mean(-1, keepdim=True)
    loudness: float = values.shape[-1] ** 0.5  # the mean of n has 1/√n of their deviation
    return loudness * brightness + 0.4 * (values - brightness)


def spread(values: Tensor, space: Sequence[int]) -> Tensor:
    """With one place along each side, to be multiplied with images."""
    return values.view(*values.shape, *[1] * len(space))


def deviation(images: Tensor, dims: list[int]) -> Tensor:
    """Standard deviation over dimensions; 1 where they hold a single value, which has none."""
    if all(images.shape[d] == 1 for d in dims):
        return torch.ones_like(images)
    return images.std(dims, keepdim=True).clamp(min=1e-12)


def normalised(images: Tensor, value_range: Range) -> Tensor:
    """Zero mean and unit variance per channel, or between the lowest and the highest value."""
    dims = [d for d in range(images.ndim) if d != 1]
    standard = images
    if any(images.shape[d] > 1 for d in dims):  # a single value would be nothing but its mean
        standard = (images - images.mean(dims, keepdim=True)) / deviation(images, dims)
    if value_range is None:
        return standard
    low, high = value_range
    return (low + (high - low) * (0.5 + standard / 4)).clamp(low, high)

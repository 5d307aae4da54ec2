"""Images made of nothing: noise and dead leaves.

Natural images have a power spectrum near 1/f² and are made of things that hide each other; dead
leaves (random shapes with power-law sizes, one over the other) have both, and edges. What matters
to a network behind batch norms is only how neighbouring pixels and channels correlate.

Every source takes (count, shape, generator, value_range): the number of images, their shape
(channels, *space), a CPU generator, and the lowest and highest value of real images, or None where
that is unknown. It returns float32 (count, *shape): within the range, or with zero mean and unit
variance per channel. Plain vectors, without space, are white noise from every source.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Range = tuple[float, float] | None
Source = Callable[[int, tuple[int, ...], torch.Generator, Range], Tensor]

LEAVES = 100
"""Shapes per image; they cover it several times over."""


def dead_leaves(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Random ellipses and boxes, turned, stretched and coloured, each hiding those before it.

    Radii follow the power law p(r) ∝ r⁻³ of natural scenes (Lee, Mumford & Huang, 2001).
    """
    channels, *space = shape
    if not space:
        return white_noise(count, shape, generator, value_range)
    images = torch.zeros(count, channels, *space)
    grids = torch.meshgrid(*(torch.arange(size) + 0.5 for size in space), indexing="ij")
    column = (-1, *(1 for _ in space))

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    smallest, largest = 1.5, max(2.0, max(space) / 2)
    for _ in range(LEAVES):
        radius = (smallest**-2 + uniform(count) * (largest**-2 - smallest**-2)) ** -0.5
        offsets = [
            grid - (uniform(count) * size).view(column)
            for grid, size in zip(grids, space, strict=True)
        ]
        if len(space) > 1:
            angle = (uniform(count) * torch.pi).view(column)
            first, second = offsets[:2]
            offsets[0] = angle.cos() * first - angle.sin() * second
            offsets[1] = angle.sin() * first + angle.cos() * second
        stretch = 0.4 + 0.6 * uniform(count)
        reach = [radius, *(radius * stretch for _ in space[1:])]
        scaled = [
            (offset / size.view(column)).square()
            for offset, size in zip(offsets, reach, strict=False)
        ]
        ellipse, box = torch.stack(scaled).sum(0), torch.stack(scaled).amax(0)
        covered = torch.where(uniform(count).view(column) < 0.5, ellipse, box) < 1
        colour = _coloured(uniform(count, channels)).view(count, channels, *(1 for _ in space))
        images = torch.where(covered[:, None], colour, images)
    return _placed(images, value_range)


def pink_noise(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Noise with amplitude 1/f in space and channels that correlate as colours do."""
    channels, *space = shape
    if not space:
        return white_noise(count, shape, generator, value_range)
    white = torch.randn(count, channels, *space, generator=generator)
    dims = list(range(2, 2 + len(space)))
    axes = torch.meshgrid(*(torch.fft.fftfreq(size) for size in space), indexing="ij")
    frequency = torch.stack([axis.square() for axis in axes]).sum(0).sqrt()
    amplitude = 1 / frequency.clamp(min=1 / max(space))
    images = torch.fft.ifftn(torch.fft.fftn(white, dim=dims) * amplitude, dim=dims).real
    return _placed(_coloured(images.movedim(1, -1)).movedim(-1, 1), value_range)


def white_noise(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Independent normal numbers."""
    return _placed(torch.randn(count, *shape, generator=generator), value_range)


SOURCES: dict[str, Source] = {"leaves": dead_leaves, "pink": pink_noise, "white": white_noise}
"""The sources by name."""


def _coloured(values: Tensor) -> Tensor:
    """Correlates the channels (last dimension) as colours are: mostly brightness."""
    brightness = values.mean(-1, keepdim=True)
    return brightness + 0.5 * (values - brightness)


def _placed(images: Tensor, value_range: Range) -> Tensor:
    """Zero mean and unit variance per channel, or between the lowest and the highest value."""
    dims = [d for d in range(images.ndim) if d != 1]
    mean, std = images.mean(dims, keepdim=True), images.std(dims, keepdim=True).clamp(min=1e-12)
    standard = (images - mean) / std
    if value_range is None:
        return standard
    low, high = value_range
    return (low + (high - low) * (0.5 + standard / 4)).clamp(low, high)

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
from typing import Any

import torch
from torch import Tensor

Range = tuple[float, float] | None
Source = Callable[[int, tuple[int, ...], torch.Generator, Range], Tensor]

CPU: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
"""Where and what is drawn, whatever the defaults are."""

LEAVES = 50
"""Shapes per image; they cover it several times over."""


def dead_leaves(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Random ellipses and boxes, each hiding those before it, as things in a scene do.

    They are turned and stretched at random; their edges are soft, their faces shaded and grained
    with 1/f noise, and the colours of an image gather around its own. Radii follow the power law
    p(r) ∝ r⁻² (Lee, Mumford & Huang, "Occlusion models for natural images", 2001, have r⁻³ before
    occlusion: with so few pixels the larger shapes come nearer to what batch norms have stored).
    """
    channels, *space = shape
    if not space:
        return white_noise(count, shape, generator, value_range)
    grids = torch.meshgrid(*(torch.arange(size, **CPU) + 0.5 for size in space), indexing="ij")
    column = (-1, *(1 for _ in space))

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, **CPU)

    def colours() -> Tensor:
        return _coloured(torch.randn(count, channels, generator=generator, **CPU))

    smallest, largest = 1.5, max(2.0, max(space) / 2)
    grain = _pink(count, (1, *space), generator)
    theme = colours()
    images = torch.zeros(count, channels, *space, **CPU)
    for _ in range(LEAVES):
        radius = (1 / smallest + uniform(count) * (1 / largest - 1 / smallest)).reciprocal()
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
        scaled = torch.stack(
            [offset / size.view(column) for offset, size in zip(offsets, reach, strict=True)]
        )
        ellipse, box = scaled.square().sum(0).sqrt(), scaled.abs().amax(0)
        distance = torch.where(uniform(count).view(column) < 0.5, ellipse, box)
        blur = (0.5 + 2 * uniform(count)).view(column)  # pixels
        covered = ((1 - distance) * radius.view(column) / blur + 0.5).clamp(0, 1)[:, None]
        shade = (uniform(count) - 0.5).view(column) * scaled[0].clamp(-2, 2)
        face = shade[:, None] + (0.2 * uniform(count)).view(column)[:, None] * grain
        colour = (0.7 * theme + 0.7 * colours()).view(count, channels, *column[1:])
        images = torch.lerp(images, colour + face, covered)
    mean = images.mean(list(range(2, images.ndim)), keepdim=True)
    contrast = torch.exp(2 * uniform(count) - 1).view(column)[:, None]
    return _placed(mean + contrast * (images - mean), value_range)


def pink_noise(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Noise with amplitude 1/f in space and channels that correlate as colours do."""
    if len(shape) == 1:
        return white_noise(count, shape, generator, value_range)
    images = _pink(count, shape, generator)
    return _placed(_coloured(images.movedim(1, -1)).movedim(-1, 1), value_range)


def white_noise(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Independent normal numbers."""
    return _placed(torch.randn(count, *shape, generator=generator, **CPU), value_range)


SOURCES: dict[str, Source] = {"leaves": dead_leaves, "pink": pink_noise, "white": white_noise}
"""The sources by name."""


def _pink(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise with amplitude 1/f in space, independent over channels, of unit variance."""
    space = shape[1:]
    white = torch.randn(count, *shape, generator=generator, **CPU)
    dims = list(range(2, 2 + len(space)))
    axes = torch.meshgrid(*(torch.fft.fftfreq(size, **CPU) for size in space), indexing="ij")
    frequency = torch.stack([axis.square() for axis in axes]).sum(0).sqrt()
    amplitude = 1 / frequency.clamp(min=1 / max(space))
    images: Tensor = torch.fft.ifftn(torch.fft.fftn(white, dim=dims) * amplitude, dim=dims).real
    return images / _deviation(images, dims)


def _coloured(values: Tensor) -> Tensor:
    """Correlates independent channels (last dimension) as colours are: mostly brightness."""
    brightness: Tensor = values.mean(-1, keepdim=True)
    loudness: float = values.shape[-1] ** 0.5  # the mean of n has 1/√n of their deviation
    return loudness * brightness + 0.4 * (values - brightness)


def _deviation(images: Tensor, dims: list[int]) -> Tensor:
    """Standard deviation over dimensions; 1 where they hold a single value, which has none."""
    if all(images.shape[d] == 1 for d in dims):
        return torch.ones_like(images)
    return images.std(dims, keepdim=True).clamp(min=1e-12)


def _placed(images: Tensor, value_range: Range) -> Tensor:
    """Zero mean and unit variance per channel, or between the lowest and the highest value."""
    dims = [d for d in range(images.ndim) if d != 1]
    standard = images
    if any(images.shape[d] > 1 for d in dims):  # a single value would be nothing but its mean
        standard = (images - images.mean(dims, keepdim=True)) / _deviation(images, dims)
    if value_range is None:
        return standard
    low, high = value_range
    return (low + (high - low) * (0.5 + standard / 4)).clamp(low, high)

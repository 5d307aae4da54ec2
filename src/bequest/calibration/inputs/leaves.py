"""Dead leaves: random shapes with power-law sizes, one over the other.

Natural images have a power spectrum near 1/f² and are made of things that hide each other; dead
leaves have both, and edges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bequest.calibration.inputs.images import CPU, Range, coloured, normalised
from bequest.calibration.inputs.noise import pink_channels, white_noise

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
        return coloured(torch.randn(count, channels, generator=generator, **CPU))

    smallest, largest = 1.5, max(2.0, max(space) / 2)
    grain = pink_channels(count, (1, *space), generator)
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
    return normalised(mean + contrast * (images - mean), value_range)

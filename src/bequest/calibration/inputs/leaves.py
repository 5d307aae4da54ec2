"""Dead leaves: random shapes with power-law sizes, one over the other, each with a surface.

Natural images have a power spectrum near 1/f² and are made of things that hide each other; dead
leaves have both, and edges (Lee, Mumford & Huang, "Occlusion models for natural images", 2001).
With textures they are among the best that can be drawn to learn to see from (Baradad et al.,
"Learning to see by looking at noise", 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from bequest.calibration.inputs.images import CPU, Range, coloured, normalised, spread
from bequest.calibration.inputs.noise import white_noise
from bequest.calibration.inputs.shapes import Shapes
from bequest.calibration.inputs.textures import textures

SURFACES = 4
"""Textures that there are for each image. Each shape shows one of all, in one more colour of its
own or in all channels alike."""

FEWEST, MOST, NUMBERS = 8, 512, 2**23
"""The fewest and the most textures, and how many numbers more than the fewest may hold."""

TOGETHER = 2**16
"""How many numbers images that are drawn together hold: small ones take the time of the calls, not
that of their pixels. They share a window, which is most of them; that of a large one is its own."""


def dead_leaves(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Random ellipses and boxes, each hiding those before it, as things in a scene do.

    They are stretched at random and turned in the plane of the first two axes; their edges are
    soft, their faces shaded and textured, and the colours of an image gather around its own. Behind
    them is one face without edges. Radii follow the power law p(r) ∝ r⁻² (Lee, Mumford & Huang have
    r⁻³ before occlusion: with so few pixels the larger shapes come nearer to what batch norms have
    stored).
    """
    _, *space = shape
    if not space:
        return white_noise(count, shape, generator, value_range)
    number = min(SURFACES * count, MOST, NUMBERS // prod(space))
    surfaces = textures(max(number, FEWEST), space, generator)
    images = torch.zeros(count, *shape, **CPU)
    for scenes in torch.split(images, max(1, TOGETHER // prod(shape))):
        _draw(scenes, surfaces, generator)
    return normalised(images, value_range)


def _draw(images: Tensor, surfaces: Tensor, generator: torch.Generator) -> None:
    """Draws some of the images, (count, C, *space), each of a contrast of its own."""
    count, channels, *space = images.shape
    shapes = Shapes.drawn(count, space, generator)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, **CPU)

    def colours(number: int) -> Tensor:
        normal = torch.randn(number, count, channels, generator=generator, **CPU)
        return spread(0.7 * coloured(normal), space)

    theme, one, other = colours(1), colours(len(shapes)), colours(len(shapes))
    slope, contrast, tinted = spread(uniform(3, len(shapes), count, 1), space)
    face, slope = theme + one, slope - 0.5
    tint = 0.7 * contrast.square() * torch.where(tinted < 0.5, theme + other, 1.0)
    surface = (uniform(len(shapes), count) * len(surfaces)).long()
    origins = uniform(len(shapes), len(space)).tolist()
    for i, window in enumerate(shapes.windows):
        grain = _part(surfaces, window, origins[i])[surface[i]]
        away, covered = shapes.cover(i)
        shown = torch.addcmul(face[i], tint[i], grain.unsqueeze(1))
        shown.addcmul_(slope[i], away.clamp_(-2, 2).unsqueeze(1))
        images[:, :, *window].lerp_(shown, covered.unsqueeze(1))
    dims = list(range(2, images.ndim))
    mean = images.mean(dims, keepdim=True)
    stretch = torch.exp(2 * uniform(count, 1) - 1)
    images.copy_(mean + spread(stretch, space) * (images - mean))


def _part(surfaces: Tensor, window: Sequence[slice], origin: Sequence[float]) -> Tensor:
    """As much of every surface as fills a window, from any place on that leaves room for it."""
    parts = []
    for side, place, share in zip(surfaces.shape[1:], window, origin, strict=True):
        width = place.stop - place.start
        start = int(share * (side - width + 1))
        parts.append(slice(start, start + width))
    return surfaces[:, *parts]

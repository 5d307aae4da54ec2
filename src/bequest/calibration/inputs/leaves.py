"""Dead leaves: random shapes with power-law sizes, one over the other, each with a surface.

Natural images have a power spectrum near 1/f² and are made of things that hide each other; dead
leaves have both, and edges (Lee, Mumford & Huang, "Occlusion models for natural images", 2001).
With textures they are among the best that can be drawn to learn to see from (Baradad et al.,
"Learning to see by looking at noise", 2021).
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from bequest.calibration.inputs.images import CPU, Range, coloured, normalised, spread
from bequest.calibration.inputs.noise import white_noise
from bequest.calibration.inputs.shapes import Shapes
from bequest.calibration.inputs.textures import textures

SURFACES, FEWEST, NUMBERS = 512, 32, 2**25
"""Textures that there are: as many as images, within the first two, and of no more than so many
numbers where that leaves enough. Each shape shows a random place of one of them, in one more colour
of its own or in all channels alike."""

TOGETHER = 2**16
"""Pixels of images that are drawn at once. Small ones take the time of the calls, whatever these
hold, and are drawn nearly as a whole; large ones that of their pixels, and are drawn one by one,
each shape within its window."""


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
    pixels, twice = prod(space), [2] * len(space)
    most = max(FEWEST, min(SURFACES, 4 * count, NUMBERS // (pixels * prod(twice))))
    surfaces = textures(most, space, generator).repeat(1, *twice)
    images = torch.zeros(count, *shape, **CPU)
    for scenes in torch.split(images, max(1, TOGETHER // pixels)):
        _draw(scenes, surfaces, generator)
    return normalised(images, value_range)


def _draw(images: Tensor, surfaces: Tensor, generator: torch.Generator) -> None:
    """Draws some of the images, (count, C, *space), each of a contrast of its own.

    Surfaces are twice as long in each direction, so that they can be shown from any place on.
    """
    count, channels, *space = images.shape
    shapes = Shapes.drawn(count, space, generator)

    def uniform(*size: int) -> Tensor:
        return torch.rand(len(shapes), count, *size, generator=generator, **CPU)

    def colours(number: int) -> Tensor:
        normal = torch.randn(number, count, channels, generator=generator, **CPU)
        return spread(0.7 * coloured(normal), space)

    theme, one, other = colours(1), colours(len(shapes)), colours(len(shapes))
    slopes, contrasts, tinted = spread(uniform(3), space).unsqueeze(3).unbind(2)
    slopes = slopes - 0.5
    faces = theme + one
    tints = 0.7 * contrasts.square() * torch.where(tinted < 0.5, theme + other, 1.0)
    chosen = (uniform() * len(surfaces)).long()
    starts = torch.rand(len(shapes), len(space), generator=generator, **CPU) * torch.tensor(
        space, **CPU
    )
    for index, window in enumerate(shapes.windows):
        away, covered = shapes.cover(index)
        moved = zip(window, starts[index].long().tolist(), strict=True)
        shown = [slice(part.start + start, part.stop + start) for part, start in moved]
        grain = surfaces[:, *shown][chosen[index], None]
        face = torch.addcmul(faces[index], tints[index], grain)
        face.addcmul_(slopes[index], away.clamp_(-2, 2).unsqueeze(1))
        images[:, :, *window].lerp_(face, covered.unsqueeze(1))
    dims = list(range(2, images.ndim))
    mean = images.mean(dims, keepdim=True)
    contrast = torch.exp(2 * torch.rand(count, 1, generator=generator, **CPU) - 1)
    images.copy_(mean + spread(contrast, space) * (images - mean))

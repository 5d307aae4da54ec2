"""Textures: periodic patterns such as surfaces have, made of noise in a few frequencies.

Networks tell things apart by their surfaces as much as by their outlines (Geirhos et al., "CNNs
trained on ImageNet are biased towards texture", ICLR 2019). Noise of one spectrum is one surface;
here each has a spectrum of its own: clouds or sand, spots, stripes, threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from bequest.calibration.inputs.images import CPU, deviation, spread
from bequest.calibration.inputs.noise import filtered, frequencies, length

FINEST, COARSEST = 1 / 90, 1 / 4
"""Wavelengths of spots and stripes, as shares of the longest side."""

VISIBLE = 2
"""Pixels of a wavelength below which there are no spots or stripes to be seen: small images are
large ones that were shrunk, and what was fine in these has gone."""

TOGETHER = 2**20
"""Numbers of the textures that are made at once, which takes eight times the memory of these."""

EDGED = 0.5
"""Chance of a texture that its values are driven apart, which gives it edges."""


def textures(count: int, space: Sequence[int], generator: torch.Generator) -> Tensor:
    """Textures (count, *space) without a seam between their ends.

    With equal chances each is of clouds (amplitude f⁻ᵖ, p between a half and one and a half), spots
    (a band of frequencies), stripes (a band, in about one direction) or threads (clouds that are
    stretched up to tenfold). They have zero mean and unit variance, but for spots and stripes that
    are too fine to be seen: these are zeros.
    """
    waves = frequencies(space)
    together = max(1, TOGETHER // prod(space))
    starts = range(0, count, together)
    blocks = [_some(min(together, count - start), waves, generator) for start in starts]
    return torch.cat(blocks)


def _some(count: int, waves: Tensor, generator: torch.Generator) -> Tensor:
    """As many of them, over frequencies (*space, D)."""
    *space, ways = waves.shape
    kinds, steepness, edged, *form = torch.rand(5, count, generator=generator, **CPU)
    axes = torch.randn(count, ways, generator=generator, **CPU)
    axes = axes / axes.norm(dim=1, keepdim=True)
    amplitudes = torch.empty(count, *space, **CPU)
    for number, amplitude in enumerate(KINDS):
        these = (kinds * len(KINDS)).long() == number
        forms = [spread(each[these], space) for each in form]
        amplitudes[these] = amplitude(waves, axes[these], forms)
    white = torch.randn(count, *space, generator=generator, **CPU)
    plain = _standard(filtered(white, amplitudes, space))
    apart = _standard((plain * spread(1 + 4 * steepness, space)).tanh())
    return torch.where(spread(edged, space) < EDGED, apart, plain)


def _standard(values: Tensor) -> Tensor:
    dims = list(range(1, values.ndim))
    return (values - values.mean(dims, keepdim=True)) / deviation(values, dims)


def _clouds(waves: Tensor, axes: Tensor, form: Sequence[Tensor]) -> Tensor:
    return length(waves) ** -(0.5 + form[0])


def _spots(waves: Tensor, axes: Tensor, form: Sequence[Tensor]) -> Tensor:
    return _band(waves, form[0], 0.2 + 0.5 * form[1])


def _stripes(waves: Tensor, axes: Tensor, form: Sequence[Tensor]) -> Tensor:
    angles = (_along(waves, axes).abs() / length(waves)).clamp(max=1).arccos()
    return _band(waves, form[0], 0.3) * (-((angles / (0.05 + 0.5 * form[1])) ** 2)).exp()


def _threads(waves: Tensor, axes: Tensor, form: Sequence[Tensor]) -> Tensor:
    stretched = ((1 + 9 * form[0]) ** 2 - 1) * _along(waves, axes) ** 2
    return (length(waves) ** 2 + stretched) ** -0.6


def _along(waves: Tensor, axes: Tensor) -> Tensor:
    """Of frequencies (*space, D) the parts along directions (count, D), (count, *space)."""
    found: Tensor = torch.tensordot(axes, waves, dims=([1], [-1]))
    return found


KINDS: Sequence[Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]] = (
    _clouds,
    _spots,
    _stripes,
    _threads,
)
"""Amplitudes (count, *space) over frequencies (*space, D), by directions (count, D) and two numbers
in [0, 1) that give their form."""


def _band(waves: Tensor, where: Tensor, width: Tensor | float) -> Tensor:
    """Bands of frequencies, Gaussian over their logarithm; finest first."""
    wavelength = max(waves.shape[:-1]) * FINEST * (COARSEST / FINEST) ** where
    bands = (-(((length(waves) * wavelength).log() / width) ** 2)).exp()
    return torch.where(wavelength >= VISIBLE, bands, 0.0)

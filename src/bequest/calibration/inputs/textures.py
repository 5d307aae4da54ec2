"""Textures: periodic patterns such as surfaces have, made of noise in a few frequencies.

Networks tell things apart by their surfaces as much as by their outlines (Geirhos et al., "CNNs
trained on ImageNet are biased towards texture", ICLR 2019). Noise of one spectrum is one surface;
here each has a spectrum of its own: clouds or sand, spots, stripes, threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bequest.calibration.inputs.images import CPU, deviation
from bequest.calibration.inputs.noise import filtered, frequencies, length

FINEST, COARSEST = 1 / 90, 1 / 4
"""Wavelengths of spots and stripes, as shares of the longest side."""

VISIBLE = 2
"""Pixels of a wavelength below which there are no spots or stripes to be seen: small images are
large ones that were shrunk, and what was fine in these has gone."""

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
    return torch.stack([_texture(waves, generator) for _ in range(count)])


def _texture(waves: Tensor, generator: torch.Generator) -> Tensor:
    """One of them, over frequencies (*space, D)."""
    *space, ways = waves.shape
    kind, steepness, edged, *form = torch.rand(5, generator=generator, **CPU).tolist()
    axis = torch.randn(ways, generator=generator, **CPU)
    amplitude = KINDS[int(kind * len(KINDS))](waves, axis / axis.norm(), form)
    white = torch.randn(*space, generator=generator, **CPU)
    found = _centred(filtered(white, amplitude))
    return _centred((found * (1 + 4 * steepness)).tanh()) if edged < EDGED else found


def _centred(values: Tensor) -> Tensor:
    return (values - values.mean()) / deviation(values, list(range(values.ndim)))


def _clouds(waves: Tensor, axis: Tensor, form: Sequence[float]) -> Tensor:
    return length(waves) ** -(0.5 + form[0])


def _spots(waves: Tensor, axis: Tensor, form: Sequence[float]) -> Tensor:
    return _band(waves, form[0], 0.2 + 0.5 * form[1])


def _stripes(waves: Tensor, axis: Tensor, form: Sequence[float]) -> Tensor:
    angle = ((waves @ axis).abs() / length(waves)).clamp(max=1).arccos()
    return _band(waves, form[0], 0.3) * (-((angle / (0.05 + 0.5 * form[1])) ** 2)).exp()


def _threads(waves: Tensor, axis: Tensor, form: Sequence[float]) -> Tensor:
    along = (waves @ axis)[..., None] * axis
    return length(waves + 9 * form[0] * along) ** -1.2


KINDS: Sequence[Callable[[Tensor, Tensor, Sequence[float]], Tensor]] = (
    _clouds,
    _spots,
    _stripes,
    _threads,
)
"""Amplitudes over frequencies; by a direction, and two numbers in [0, 1) that give their form."""


def _band(waves: Tensor, where: float, width: float) -> Tensor:
    """A band of frequencies, Gaussian over their logarithm; finest first."""
    wavelength = max(waves.shape[:-1]) * FINEST * (COARSEST / FINEST) ** where
    band = (-(((length(waves) * wavelength).log() / width) ** 2)).exp()
    return band if wavelength >= VISIBLE else torch.zeros_like(band)

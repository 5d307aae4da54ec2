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

FINEST, COARSEST = 1 / 90, 1 / 4
"""Wavelengths of spots and stripes, as shares of the shorter side."""

VISIBLE = 2
"""Pixels of a wavelength below which a surface is plain: small images are large ones that were
shrunk, and what was fine in these has gone."""


def textures(count: int, space: Sequence[int], generator: torch.Generator) -> Tensor:
    """Textures (count, *space) of zero mean and unit variance, without a seam between their ends.

    A quarter each are clouds (amplitude f⁻ᵖ, p between a half and one and a half), spots (a band of
    frequencies), stripes (a band, in about one direction) and threads (clouds that are stretched up
    to tenfold). Of half of them the values are driven apart, which gives them edges.
    """
    waves = torch.stack(
        torch.meshgrid(*(torch.fft.fftfreq(side, **CPU) for side in space), indexing="ij"), -1
    )
    return torch.stack([_texture(waves, generator) for _ in range(count)])


def _texture(waves: Tensor, generator: torch.Generator) -> Tensor:
    """One of them, over frequencies (*space, D)."""
    *space, ways = waves.shape
    kind, form, edges = torch.rand(3, generator=generator, **CPU).tolist()
    spectrum = KINDS[int(kind * len(KINDS))]
    axis = torch.randn(ways, generator=generator, **CPU)
    amplitude = spectrum(waves, axis / axis.norm(), torch.rand(2, generator=generator, **CPU))
    white = torch.randn(*space, generator=generator, **CPU)
    found = torch.fft.ifftn(torch.fft.fftn(white) * amplitude).real
    found = _standard(found)
    return _standard((found * (1 + 4 * form)).tanh()) if edges < EDGED else found


EDGED = 0.5
"""Share of textures whose values are driven apart."""


def _clouds(waves: Tensor, axis: Tensor, form: Tensor) -> Tensor:
    return _length(waves) ** -(0.5 + float(form[0]))


def _spots(waves: Tensor, axis: Tensor, form: Tensor) -> Tensor:
    return _band(waves, float(form[0]), 0.2 + 0.5 * float(form[1]))


def _stripes(waves: Tensor, axis: Tensor, form: Tensor) -> Tensor:
    across = (waves @ axis).abs() / _length(waves)
    angle = across.clamp(max=1).arccos()
    return (
        _band(waves, float(form[0]), 0.3) * (-((angle / (0.05 + 0.5 * float(form[1]))) ** 2)).exp()
    )


def _threads(waves: Tensor, axis: Tensor, form: Tensor) -> Tensor:
    along = (waves @ axis)[..., None] * axis
    return _length(waves + 9 * float(form[0]) * along) ** -1.2


KINDS: Sequence[Callable[[Tensor, Tensor, Tensor], Tensor]] = (_clouds, _spots, _stripes, _threads)
"""Amplitudes over frequencies, a direction and two numbers in [0, 1)."""


def _band(waves: Tensor, where: float, width: float) -> Tensor:
    """A band of frequencies, Gaussian over their logarithm; finest first."""
    wavelength = min(waves.shape[:-1]) * FINEST * (COARSEST / FINEST) ** where
    band = (-((_length(waves) * wavelength).log() / width).square()).exp()
    return band if wavelength >= VISIBLE else torch.zeros_like(band)


def _length(waves: Tensor) -> Tensor:
    """Of each frequency; the constant counts as the lowest."""
    length: Tensor = waves.norm(dim=-1)
    return length.clamp(min=1 / max(waves.shape[:-1]))


def _standard(values: Tensor) -> Tensor:
    return (values - values.mean()) / deviation(values, list(range(values.ndim)))

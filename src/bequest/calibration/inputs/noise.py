"""Noise: white, or with the power spectrum of natural images, near 1/f²."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bequest.calibration.inputs.images import CPU, Range, coloured, deviation, normalised


def white_noise(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Independent normal numbers."""
    return normalised(torch.randn(count, *shape, generator=generator, **CPU), value_range)


def pink_noise(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Noise with amplitude 1/f in space and channels that correlate as colours do.

    Plain vectors, without space, are white noise.
    """
    if len(shape) == 1:
        return white_noise(count, shape, generator, value_range)
    space = shape[1:]
    white = torch.randn(count, *shape, generator=generator, **CPU)
    images = coloured(filtered(white, 1 / length(frequencies(space)), space).movedim(1, -1))
    return normalised(images.movedim(-1, 1), value_range)


def frequencies(space: Sequence[int]) -> Tensor:
    """Of a discrete Fourier transform, (*space, D), in cycles per pixel."""
    axes = (torch.fft.fftfreq(side, **CPU) for side in space)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def length(waves: Tensor) -> Tensor:
    """Of each frequency; the constant counts as the lowest."""
    found: Tensor = waves.norm(dim=-1)
    return found.clamp(min=1 / max(waves.shape[:-1]))


def filtered(white: Tensor, amplitude: Tensor, space: Sequence[int]) -> Tensor:
    """Noise (..., *space) with that amplitude at each frequency, each of unit variance or 0."""
    dims = list(range(-len(space), 0))
    found: Tensor = torch.fft.ifftn(torch.fft.fftn(white, dim=dims) * amplitude, dim=dims).real
    return found / deviation(found, dims)

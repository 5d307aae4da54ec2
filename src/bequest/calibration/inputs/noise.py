"""Noise: white, or with the power spectrum of natural images, near 1/f²."""

from __future__ import annotations

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
    images = pink_channels(count, shape, generator)
    return normalised(coloured(images.movedim(1, -1)).movedim(-1, 1), value_range)


def pink_channels(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise with amplitude 1/f in space, independent over channels, of unit variance."""
    space = shape[1:]
    white = torch.randn(count, *shape, generator=generator, **CPU)
    dims = list(range(2, 2 + len(space)))
    axes = torch.meshgrid(*(torch.fft.fftfreq(size, **CPU) for size in space), indexing="ij")
    frequency = torch.stack([axis.square() for axis in axes]).sum(0).sqrt()
    amplitude = 1 / frequency.clamp(min=1 / max(space))
    images: Tensor = torch.fft.ifftn(torch.fft.fftn(white, dim=dims) * amplitude, dim=dims).real
    return images / deviation(images, dims)

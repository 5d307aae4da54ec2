"""What a network says of its own inputs: the first batch norms have stored what became of them.

Up to a batch norm that lies behind no other and behind nothing but affine operators, a channel o
is b_o + Σ_c A[o,c]·m_c on average over places, for inputs of mean m, and varies by s²·v_o for
inputs of s times the deviation of those that are drawn. With the stored mean μ and variance σ² of
each channel,

    m = argmin Σ_o ((b_o + Σ_c A[o,c]·m_c − μ_o)/σ_o)²   and   s² = median_o (σ_o² − u_o)/v_o,

u_o what the mean alone varies by from place to place, at padded borders. A, b, u and v are found by
running images, so that padding, strides and normalisations that the network begins with are in
them (docs/methods.md, "synthetic").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from bequest.calibration.inputs.images import Range, normalised
from bequest.calibration.inputs.scale import WIDEST, first_norms, has_statistics
from bequest.calibration.samples import Samples
from bequest.execution.copies import private_copy
from bequest.graph.inputs import with_tensors

MOST_CHANNELS = 64
"""Channels of inputs up to which their means are asked for; each takes a pass of one image."""

SHIFTED, STRETCHED = 0.5, 2.0
"""Deviations that the mean may be from zero, and times that the deviation may be one or the inverse
of it, in what has been normalised: CIFAR's and ImageNet's networks tell 0.2 and 1.2 to 1.6, those
that read [0, 1] 1.7 and 0.3."""

HELD = 1e-3
"""Ridge of the means, relative: colours that no filter tells apart have the same mean."""

SAME = 1e-3
"""Difference between both sides of zero, of the response, up to which an operator is affine."""


@dataclass(frozen=True)
class Told:
    """What batch norms tell of the inputs that a network was trained on.

    Attributes:
        norm: qualified name of the first of these norms.
        mean: of each channel, (C,).
        deviation: of all channels, over all inputs and places.
    """

    norm: str
    mean: Tensor
    deviation: float

    def applied(self, images: Tensor) -> Tensor:
        """Images of zero mean and unit variance, with these in place of them."""
        shape = (1, -1, *(1 for _ in images.shape[2:]))
        return images * self.deviation + self.mean.to(images).view(shape)

    @property
    def is_standard(self) -> bool:
        """Whether it is about zero mean and unit variance, which normalising makes.

        Augmented images have black borders, and drawn ones another spectrum than those of the
        training: in so far what is told is not what the network will read.
        """
        shift = float(self.mean.square().mean().sqrt()) / self.deviation
        return shift <= SHIFTED and 1 / STRETCHED <= self.deviation <= STRETCHED

    def differs(self, value_range: tuple[float, float]) -> bool:
        """Whether inputs in a range can hardly have been those of the training."""
        low, high = value_range
        spread = (high - low) / 4 / self.deviation
        inside = bool(((self.mean >= low) & (self.mean <= high)).all())
        return not (inside and 1 / WIDEST <= spread <= WIDEST)

    def __str__(self) -> str:
        mean = ", ".join(f"{value:.3g}" for value in self.mean.tolist())
        return f"mean ({mean}) and standard deviation {self.deviation:.3g}, as '{self.norm}' tells"


def as_told(model: nn.Module, made: Samples, example_inputs: Any, value_range: Range) -> Samples:
    """Drawn images with the mean and deviation that batch norms tell, and a note that says so.

    They stay at zero mean and unit variance where that is about what is told. Where a range is
    given it counts; a note says so if batch norms tell something else.
    """
    images = made.images()
    found = None if images is None else told(model, example_inputs, images, made.chunk_size)
    if images is None or found is None:
        return made
    if value_range is None:
        if found.is_standard:
            return made
        return made.with_images(found.applied(images), f"made-up images have the {found}")
    if not found.differs(value_range):
        return made
    note = f"made-up images lie in {value_range}; training's had the {found}"
    return replace(made, notes=(*made.notes, note))


def told(model: nn.Module, example_inputs: Any, images: Tensor, at_once: int) -> Told | None:
    """The mean and deviation of the inputs; None where no batch norm tells.

    Args:
        model: the dense network, in at least single precision; a copy of it is run.
        example_inputs: its only input, of images or sequences (B, C, *space).
        images: drawn ones (N, C, *space); taken at zero mean and unit variance.
        at_once: how many images it takes.
    """
    channels = images.shape[1]
    if channels > MOST_CHANNELS or not any(map(has_statistics, model.modules())):
        return None
    images = normalised(images[:at_once], None)
    ones = torch.eye(channels, device=images.device, dtype=images.dtype)
    ones = ones.view(channels, channels, *(1 for _ in images.shape[2:]))
    constant = torch.cat([torch.zeros_like(ones[:1]), ones]).expand(-1, -1, *images.shape[2:])
    padded = torch.cat([constant, constant[:1].expand(-len(constant) % at_once, *images.shape[1:])])

    def met(batch: Tensor) -> list[tuple[str, nn.Module, Tensor]]:
        return first_norms(private_copy(model), with_tensors(example_inputs, [batch]))

    flat = [met(part) for part in torch.split(padded, at_once)]
    responses = [
        _Response(name, norm, value, mirrored, torch.cat([v for _, _, v in still]), channels)
        for (name, norm, value), (_, _, mirrored), *still in zip(
            met(images), met(-images), *flat, strict=True
        )
    ]
    telling = [one for one in responses if one.is_affine() and one.filters >= channels]
    if not telling:
        return None
    mean = _means([one.equations() for one in telling])
    squares = torch.cat([one.squares(mean) for one in telling])
    deviation = float(squares.median().clamp(min=0).sqrt())
    sound = bool(mean.isfinite().all()) and 0 < deviation < inf
    return Told(telling[0].norm_name, mean, deviation) if sound else None


class _Response:
    """What a batch norm meets.

    Args:
        norm_name: qualified name.
        norm: it.
        value: of drawn images, (n, O, *places).
        mirrored: of their negatives.
        constant: of images of zeros, and of ones in each of C channels, (≥ 1 + C, O, *places).
        channels: C.

    Behind a linear layer there are no places; that is one.
    """

    def __init__(
        self,
        norm_name: str,
        norm: nn.Module,
        value: Tensor,
        mirrored: Tensor,
        constant: Tensor,
        channels: int,
    ) -> None:
        value, mirrored, constant = (
            one.flatten(2) if one.ndim > 2 else one[..., None]
            for one in (value, mirrored, constant)
        )
        self.norm_name, self.zero = norm_name, constant[:1]
        self.slopes = (constant[1 : channels + 1] - self.zero).double()
        self.filters = constant.shape[1]
        self.response, self.mirrored = value - self.zero, mirrored - self.zero
        stored, var = norm.running_mean, norm.running_var
        assert isinstance(stored, Tensor)
        assert isinstance(var, Tensor)
        self.stored = stored.double()
        self.var: Tensor = var.double() + float(norm.eps)  # type: ignore[arg-type]

    def is_affine(self) -> bool:
        """Whether negatives are met as what images are met as, but for the sign."""
        uneven = float((self.response + self.mirrored).norm())
        return uneven <= SAME * float(self.response.norm())

    def equations(self) -> tuple[Tensor, Tensor]:
        """What the means solve: rows (O, C) and right-hand sides (O,), in stored deviations."""
        sigma = self.var.sqrt()
        still = self.zero[0].double().mean(1)
        rows = self.slopes.mean(2).T
        return rows / sigma[:, None], (self.stored - still) / sigma

    def squares(self, mean: Tensor) -> Tensor:
        """The inputs' variance by each filter, (O,), less what the mean does at the borders."""
        still = self.zero[0].double() + torch.tensordot(mean.double(), self.slopes, 1)
        borders = still.var(1, correction=0)
        rows = self.response.transpose(0, 1).flatten(1).double()
        squares: Tensor = (self.var - borders) / rows.var(1, correction=0)
        return squares


def _means(equations: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The means of the channels (C,), by least squares with a slight ridge."""
    a, t = (torch.cat(parts) for parts in zip(*equations, strict=True))
    gram = a.T @ a
    ridge = (HELD * gram.diagonal().mean()).clamp(min=1e-12)
    held = ridge * torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
    means: Tensor = torch.linalg.solve(gram + held, a.T @ t)
    return means.float()

"""How a linear or convolution layer applies its weight: everything about it but the values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from bequest.graph.geometry import Geometry
from bequest.surgery.operation import laid_out_as

Plain = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
"""The layers whose weights are filters along dimension 0."""

KINDS: tuple[type, ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""The same, by number of dimensions of their kernels."""

_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
)


def plain_filters(layer: nn.Module) -> Tensor | None:
    """The weight of a plain layer; None for other modules, subclasses of the plain ones included.

    Their code may use the weight in ways of its own (the projections of ``nn.MultiheadAttention``).
    """
    return layer.weight if isinstance(layer, Plain) and type(layer) in KINDS else None


@dataclass(frozen=True, kw_only=True)
class LayerGeometry(Geometry):
    """What a plain layer does with a weight (out, in/groups, *kernel) and a bias (out,).

    Attributes:
        shape: of its weight.
        padding_mode: what lies beyond the border.
        border: what a mode other than zeros adds, as :func:`torch.nn.functional.pad` takes it.
    """

    shape: tuple[int, ...]
    padding_mode: str = "zeros"
    border: tuple[int, ...] = ()

    @classmethod
    def of(cls, layer: Plain) -> Self:
        """The geometry of a plain layer."""
        shape = tuple(layer.weight.shape)
        if isinstance(layer, nn.Linear):
            return cls(linear=True, shape=shape)
        return cls(
            linear=False,
            kernel=shape[2:],
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            shape=shape,
            padding_mode=layer.padding_mode,
            border=tuple(layer._reversed_padding_repeated_twice),
        )

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output for this weight and bias."""
        if self.linear:
            return functional.linear(x, weight, bias)
        padding = self.padding
        if self.padding_mode != "zeros":
            x = functional.pad(x, self.border, mode=self.padding_mode)
            padding = (0,) * len(self.kernel)
        convolve = _CONVOLUTIONS[len(self.kernel) - 1]
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def patch_norm(self, x: Tensor) -> Tensor:
        """Euclidean norm of the inputs that each filter reads, as :meth:`patch_sum` in shape.

        In single precision at least, also inside of autocast: squares of half precision overflow
        from 256 and vanish below 2e-4. Zero where all inputs are, with a gradient of zero.
        """
        exact = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            squares = self.patch_sum(x.to(exact).square())
        lit = squares > 0
        return torch.where(lit, squares, 1).sqrt() * lit

    def patch_sum(self, x: Tensor) -> Tensor:
        """Sum over the inputs that each filter reads, computed once per group.

        Args:
            x: (B, in, *size), or (..., in) for a linear layer.

        Returns:
            (B, out, *size'); (B, 1, *size') or (..., 1) without groups.
        """
        ones = x.new_ones(self.groups, *self.shape[1:])
        sums = self(x, ones, None)
        if self.groups == 1:
            return sums
        return sums.repeat_interleave(self.shape[0] // self.groups, dim=1)

    def over_positions(self, per_filter: Tensor) -> Tensor:
        """(out,) in a shape that broadcasts against the layer's output."""
        return per_filter.reshape(-1, *[1] * len(self.kernel))

    def make(self, weight: Tensor, bias: Tensor | None, own: Tensor) -> Plain:
        """A plain layer of this geometry with copies of the given values.

        Args:
            weight: of the layer's shape.
            bias: None = it has none.
            own: the parameter that the weight comes from, whose memory format it gets; it is frozen
                where that is.
        """
        common: dict[str, Any] = {"bias": bias is not None, "device": "meta"}
        width, inputs = self.shape[:2]
        if self.linear:
            layer: Plain = nn.Linear(inputs, width, **common)
        else:
            layer = KINDS[len(self.kernel)](
                inputs * self.groups,
                width,
                self.kernel,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=self.groups,
                padding_mode=self.padding_mode,
                **common,
            )
        values = laid_out_as(own, weight.detach().clone())
        layer.weight = nn.Parameter(values, requires_grad=own.requires_grad)
        if bias is not None:
            layer.bias = copied(bias)
        return layer

    def describe(self) -> str:
        """``in=…, out=…, kernel=…`` for a module's ``repr``."""
        width, inputs = self.shape[:2]
        kernel = f", kernel_size={self.kernel}, stride={self.stride}" if self.kernel else ""
        return f"{inputs * self.groups}, {width}{kernel}"


def copied(parameter: Tensor) -> nn.Parameter:
    """Another parameter of the same values, that is trained where this one is."""
    return nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)

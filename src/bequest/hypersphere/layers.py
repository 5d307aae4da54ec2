"""Layers on the hypersphere: each filter is a direction of unit length times a gain.

Source: Liu, Zhang, Li, Yu, Dai, Zhao, Song, "Deep hyperspherical learning", NeurIPS 2017, section
3; direction and gain as in Salimans, Kingma, "Weight normalization", NIPS 2016, eq. 2.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bequest.errors import ModelError, UsageError
from bequest.hypersphere.geometry import lengths, unit
from bequest.sparse.geometry import LayerGeometry, Plain, copied

Operator = Literal["cosine", "linear", "sigmoid"]
"""How the angle θ between filter and input becomes a response g(θ)."""

_SIGMOID_K = 0.3
_EDGE = 1e-6


class Hyperspherical(nn.Module):
    """y_i = gain_i · s · g(θ_i) + bias_i with cos θ_i = vᵢᵀx/‖x‖, v_i = direction_i/‖direction_i‖.

    x is what the filter reads: the input of a linear layer, a patch of a convolution. s is ‖x‖, or
    1 with ``input_norm``. With g = cos and s = ‖x‖ this is the plain layer of weight gain_i · v_i.
    Multiplying a direction by a positive number changes nothing.

    ========  ==================================================================
    operator  g(θ)
    ========  ==================================================================
    cosine    cos θ
    linear    1 − 2θ/π
    sigmoid   (1 + e)/(1 − e) · (1 − exp(θ/k − π/2k))/(1 + exp(θ/k − π/2k)), e = exp(−π/2k), k = 0.3
    ========  ==================================================================

    Args:
        layer: the plain layer to start from; it is copied. Its function stays the same with the
            operator "cosine" and without ``input_norm``.
        operator: g.
        input_norm: divide by the norm of the input patch.

    Attributes:
        direction: (out, in/groups, *kernel), of any norm.
        gain: (out,).
        bias: (out,) or None.

    Raises:
        UsageError: no such operator.
    """

    def __init__(
        self, layer: Plain, operator: Operator = "cosine", *, input_norm: bool = False
    ) -> None:
        super().__init__()
        if operator not in get_args(Operator):
            raise UsageError(
                f"operator: expected one of {', '.join(get_args(Operator))}; found {operator!r}"
            )
        self.geometry = LayerGeometry.of(layer)
        self.operator = operator
        self.input_norm = input_norm
        weight = layer.weight.detach()
        trained, gain = layer.weight.requires_grad, lengths(weight).flatten().to(weight.dtype)
        self.direction = nn.Parameter(unit(weight), requires_grad=trained)
        self.gain = nn.Parameter(gain, requires_grad=trained)
        self.bias = None if layer.bias is None else copied(layer.bias)

    @property
    def is_plain(self) -> bool:
        """Whether a plain layer computes the same."""
        return self.operator == "cosine" and not self.input_norm

    @property
    def weight(self) -> Tensor:
        """The weight gain · v of the plain layer that computes the same.

        Raises:
            ModelError: there is no such layer.
        """
        if not self.is_plain:
            normed = " of a normalised input" if self.input_norm else ""
            raise ModelError(
                f"the operator '{self.operator}'{normed} is not linear in its input; no plain "
                "layer computes the same"
            )
        return unit(self.direction) * self.gain.reshape(-1, *[1] * (self.direction.ndim - 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *size) → (B, out, *size'); (..., in) → (..., out) for a linear layer."""
        if self.is_plain:
            return self.geometry(x, self.weight, self.bias)
        length = self.geometry.patch_norm(x)
        reached = self.geometry(x, unit(self.direction), None)
        cosine = reached / torch.where(length > 0, length, 1)  # of nothing: at right angles to all
        response = _response(cosine, self.operator)
        if not self.input_norm:
            response = response * length
        response = response.to(reached.dtype) * self.geometry.over_positions(self.gain)
        if self.bias is None:
            return response
        return response + self.geometry.over_positions(self.bias)

    def extra_repr(self) -> str:
        """Sizes and operator."""
        normed = ", input_norm=True" if self.input_norm else ""
        return f"{self.geometry.describe()}, operator={self.operator}{normed}"


class CosineClassifier(nn.Module):
    """Logits scale · cos(w_k, x): class directions and input both of unit length.

    Args:
        layer: the linear classifier whose directions it starts from; its bias is left out.
        scale: the initial common factor of the logits; it is learnt.

    Attributes:
        direction: (classes, in), of any norm.
        scale: scalar.
    """

    def __init__(self, layer: nn.Linear, scale: float = 16.0) -> None:
        super().__init__()
        if not scale > 0 or not math.isfinite(scale):
            raise UsageError(f"scale: expected a positive number, found {scale}")
        weight = layer.weight.detach()
        trained = layer.weight.requires_grad
        self.direction = nn.Parameter(unit(weight), requires_grad=trained)
        self.scale = nn.Parameter(weight.new_tensor(scale), requires_grad=trained)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., classes)."""
        return self.scale * nn.functional.linear(of_unit_length(x), unit(self.direction))

    def plain(self) -> nn.Module:
        """A plain linear layer behind the division by the input's norm."""
        weight = (self.scale * unit(self.direction)).detach()
        geometry = LayerGeometry(linear=True, shape=tuple(weight.shape))
        return nn.Sequential(UnitLength(), geometry.make(weight, None, self.direction))

    def extra_repr(self) -> str:
        """Sizes."""
        classes, inputs = self.direction.shape
        return f"{inputs}, {classes}"


class UnitLength(nn.Module):
    """x/‖x‖ over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; a vector of zeros stays one."""
        return of_unit_length(x)


def of_unit_length(x: Tensor) -> Tensor:
    """x/‖x‖ over the last dimension, the norm in single precision at least.

    A vector of zeros stays one, with a gradient as large as that of a vector of length 1.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
    return (x / torch.where(length > 0, length, 1)).to(x.dtype)


def _response(cosine: Tensor, operator: Operator) -> Tensor:
    if operator == "cosine":
        return cosine
    # The derivative of arccos is infinite at the ends.
    angle = torch.acos(cosine.clamp(_EDGE - 1, 1 - _EDGE))
    if operator == "linear":
        return 1 - 2 * angle / math.pi
    edge = math.exp(-math.pi / (2 * _SIGMOID_K))
    # (1 - exp(t))/(1 + exp(t)) = -tanh(t/2)
    bent = torch.tanh((math.pi / 2 - angle) / (2 * _SIGMOID_K))
    return (1 + edge) / (1 - edge) * bent


@torch.no_grad()
def to_sphere(module: nn.Module) -> None:
    """Brings every direction back to unit length, in place; what the module computes stays.

    After each step of an optimiser this keeps the size of the steps along the sphere that of the
    learning rate; left alone, directions grow and turn ever more slowly.
    """
    for layer in module.modules():
        if isinstance(layer, Hyperspherical | CosineClassifier):
            layer.direction.copy_(unit(layer.direction))


def orthogonality(module: nn.Module, weight: float = 2e-4) -> Tensor:
    """Weight · ½ Σ ‖VᵀV − I‖² over the layers; V has a layer's unit filters as its columns.

    It pushes the filters of a layer away from one another. Add it to the loss.

    Args:
        module: a network with hyperspherical layers.
        weight: as Liu et al. 2017, section 3.4, use it.

    Returns:
        A differentiable scalar.

    Raises:
        ModelError: the network has no hyperspherical layer.
    """
    terms = []
    for layer in module.modules():
        if isinstance(layer, Hyperspherical | CosineClassifier):
            rows = unit(layer.direction).flatten(1)
            terms.append(
                (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device))
                .square()
                .sum()
            )
    if not terms:
        raise ModelError(
            f"{type(module).__name__} has no hyperspherical layer; make them with "
            "bequest.hypersphere.convert"
        )
    return weight * 0.5 * torch.stack(terms).sum()

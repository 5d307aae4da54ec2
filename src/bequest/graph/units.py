"""The numeric view of a group that criteria and restorers read: a *restorable unit*.

A method never sees an architecture. It sees producers (their filters as rows), the batch norm and
the activation behind them, and the consumers (their weights with the group's channels as columns),
all taken from the dense network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bequest.errors import ModelError
from bequest.execution.spans import spans


@dataclass(frozen=True)
class Activation:
    """The element-wise function between a producer (or its norm) and the consumers.

    Attributes:
        name: "identity", "relu", "gelu", ... as ATen spells it; two in a row are "relu∘tanh".
        apply: the function itself, on a tensor of any shape.
        homogeneous: True where f(s·x) = s·f(x) for every s > 0 (identity, ReLU, leaky ReLU).
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    homogeneous: bool

    @property
    def is_identity(self) -> bool:
        """True where nothing stands between producer and consumers."""
        return self.name == "identity"


@dataclass(frozen=True)
class BatchNorm:
    """The constants of a batch norm in evaluation mode; every field is float64 of shape (n,)."""

    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor
    eps: float

    @property
    def sigma(self) -> Tensor:
        """sqrt(running_var + eps), shape (n,)."""
        return (self.var + self.eps).sqrt()


@dataclass(frozen=True)
class Producer:
    """A convolution or linear layer that writes the group's channels.

    Attributes:
        name: qualified name of the layer's weight's owner, e.g. ``layer1.0.conv1``.
        kind: what the layer is; criteria count the bias as part of a *linear* row only.
        stored: (n, d), in the network's precision and maybe its memory: row i is the flattened
            filter of channel i.
        bias: float64 (n,), or None.
        norm: the batch norm that reads the producer's output directly, or None.
    """

    name: str
    kind: Literal["conv", "linear"]
    stored: Tensor
    bias: Tensor | None
    norm: BatchNorm | None

    @property
    def weight(self) -> Tensor:
        """The filters in float64, (n, d); made anew at every call."""
        return self.stored.double()

    def slices(self) -> Iterator[Tensor]:
        """The filters in float64, some of their columns at a time: (n, ≤ d) each.

        Sums over columns, such as Grams and norms, need no more of them at once: in double
        precision a wide layer alone takes more than the rest of its network.
        """
        return (self.stored[:, columns].double() for columns in spans(self.stored, dim=1))

    def summed(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Σ_j f(w_ij) of each filter, float64 (n,), f element-wise."""
        total = self.stored.new_zeros(len(self.stored), dtype=torch.float64)
        for part in self.slices():
            total += function(part).sum(dim=1)
        return total

    def folded(self) -> tuple[Tensor, Tensor]:
        """Filters and biases with the batch norm folded in: W̃ = γ/σ·W, b̃ = β + γ/σ·(b − μ).

        Returns:
            float64 (n, d) and (n,); a missing bias counts as zero.
        """
        weight = self.weight
        bias = weight.new_zeros(len(weight)) if self.bias is None else self.bias
        if self.norm is None:
            return weight, bias
        scale = self.norm.gamma / self.norm.sigma
        return scale[:, None] * weight, self.norm.beta + scale * (bias - self.norm.mean)


@dataclass(frozen=True)
class Consumer:
    """A layer that reads the group's channels.

    Attributes:
        name: qualified name of the layer.
        stored: (o, n, q), in the network's precision and maybe its memory: output × channel ×
            position (kernel positions of a convolution; pixels of a flattened map; 1 for a plain
            linear layer).
        zero_padded: True where the layer, or something before it, pads the channels with zeros,
            or sums them at a border in another way than inside: a constant offset per channel is
            not exact there.
        may_have_bias: whether it has a bias, or may be given one: takes constants up.
    """

    name: str
    stored: Tensor
    zero_padded: bool
    may_have_bias: bool = True

    @property
    def weight(self) -> Tensor:
        """The same in float64, (o, n, q); made anew at every call."""
        return self.stored.double()

    def slices(self) -> Iterator[tuple[slice, Tensor]]:
        """Which outputs, and their weights in float64, (≤ o, n, q): some outputs at a time."""
        return ((outputs, self.stored[outputs].double()) for outputs in spans(self.stored))


@dataclass(frozen=True)
class Reader:
    """A layer that reads a group's channels, as seen over samples.

    Attributes:
        name: qualified name of the layer.
        weight: float64 (o, d): outputs × inputs (channel × kernel position).
        covariance: float64 (d, d): of the inputs, over samples and output places.
        owner: int64 (d,): which of the group's channels each input belongs to; −1 = none of them.
    """

    name: str
    weight: Tensor
    covariance: Tensor
    owner: Tensor


@dataclass(frozen=True)
class Unit:
    """A group of n channels as methods see it.

    Attributes:
        name: the group's name.
        size: n.
        producers: every layer that writes the channels; one for an inner group, several for a
            residual stream.
        activation: the function between producer (or norm) and consumers; None where the path
            is not such a chain.
        consumers: every layer that reads the channels.
        obstacle: why weight-space restorers can't serve the group, in words; None = they can, and
            then there is exactly one producer, an activation, and at least one consumer.
        readers: what the layers behind the group see over samples, for criteria that ask for it;
            empty for all others.
    """

    name: str
    size: int
    producers: tuple[Producer, ...]
    activation: Activation | None
    consumers: tuple[Consumer, ...]
    obstacle: str | None
    readers: tuple[Reader, ...] = ()

    @property
    def producer(self) -> Producer:
        """The only producer of a restorable unit."""
        (only,) = self.producers
        return only

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.producers[0].stored.device

    @property
    def takes_constants(self) -> bool:
        """Whether every consumer's bias can take up what removed channels are on average."""
        return all(consumer.may_have_bias for consumer in self.consumers)

    def require_finite(
        self, tensor: Tensor, shape: tuple[int, ...], method: str, what: str
    ) -> None:
        """Checks what a method makes of this unit; ``method`` and ``what`` name it in the message.

        Raises:
            ValueError: another shape than ``shape``.
            ModelError: NaN or infinity.
        """
        if tensor.shape != shape:
            raise ValueError(
                f"{method}: expected {what} of shape {shape} for {self.name}, "
                f"found {tuple(tensor.shape)}"
            )
        if not tensor.isfinite().all():
            raise ModelError(
                f"{method}: expected finite values in the {what} for {self.name}, found NaN or "
                "infinity; look for such values in its weights"
            )

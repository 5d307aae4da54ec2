"""What pruning keeps of the weights that it takes: which they were, their signs and means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bequest.errors import UsageError
from bequest.sparse.bits import pack, packed_size, unpack
from bequest.sparse.geometry import Plain

Scope = Literal["filter", "layer", "signed"]
"""Over which pruned weights one mean is taken: those of a filter, of a layer, or those of one sign
within a filter."""

_PLACES, _SIGNS, _MEANS = "pruned_places", "pruned_signs", "pruned_means"


@dataclass(frozen=True)
class Remains:
    """What is left of a layer's pruned weights.

    Attributes:
        places: boolean, of the weight's shape; True where a weight was pruned.
        positive: boolean, of the same shape; True where a pruned weight was above 0.
        means: (out, 2): of each filter's pruned weights above 0, and of its others.
    """

    places: Tensor
    positive: Tensor
    means: Tensor

    @classmethod
    def of(cls, weight: Tensor, kept: Tensor) -> Remains:
        """Of the weights, (out, ...), that the mask ``kept`` does not keep."""
        places = ~kept
        positive = places & (weight > 0)
        means = torch.stack(
            [_row_means(weight, positive), _row_means(weight, places & ~positive)], dim=1
        )
        return cls(places, positive, means)

    def store(self, layer: Plain) -> None:
        """Keeps them as buffers of the layer, a bit for each place and sign."""
        layer.register_buffer(_PLACES, pack(self.places))
        layer.register_buffer(_SIGNS, pack(self.positive))
        layer.register_buffer(_MEANS, self.means)

    @classmethod
    def stored(cls, layer: nn.Module) -> Remains:
        """What :meth:`store` put into the layer."""
        weight = layer.weight
        assert isinstance(weight, Tensor)
        places, signs, means = (layer.get_buffer(name) for name in (_PLACES, _SIGNS, _MEANS))
        return cls(unpack(places, weight.shape), unpack(signs, weight.shape), means)

    def constants(self, scope: Scope) -> Tensor:
        """The values to put in the place of the pruned weights.

        Returns:
            (out, 2): one for the places of pruned weights above 0, one for the others. They are
            equal but for the scope "signed".

        Raises:
            UsageError: no such scope.
        """
        check_scope(scope)
        if scope == "signed":
            return self.means
        counts = torch.stack(
            [_row_sums(self.positive), _row_sums(self.places & ~self.positive)], dim=1
        )
        sums = counts * self.means.to(_exact(self.means))  # half precision counts to 65,504
        if scope == "filter":
            mean = (sums.sum(dim=1) / counts.sum(dim=1).clamp_min(1)).to(self.means.dtype)
            return mean[:, None].expand_as(self.means)
        mean = (sums.sum() / counts.sum().clamp_min(1)).to(self.means.dtype)
        return mean.expand_as(self.means)


def check_scope(scope: str) -> None:
    """Raises UsageError unless it is one of :data:`Scope`."""
    if scope not in get_args(Scope):
        raise UsageError(f"scope: expected one of {', '.join(get_args(Scope))}; found {scope!r}")


def has_remains(layer: nn.Module) -> bool:
    """Whether :meth:`Remains.store` was called for the layer."""
    return {_PLACES, _SIGNS, _MEANS} <= layer._buffers.keys()


def make_room(layer: Plain) -> None:
    """Registers the buffers with their shapes, for values to be loaded into."""
    weight = layer.weight
    size = packed_size(weight.numel())
    for name in (_PLACES, _SIGNS):
        layer.register_buffer(name, torch.zeros(size, dtype=torch.uint8, device=weight.device))
    layer.register_buffer(_MEANS, weight.new_zeros(len(weight), 2))


def _row_sums(values: Tensor) -> Tensor:
    return values.flatten(1).sum(dim=1)


def _row_means(weight: Tensor, places: Tensor) -> Tensor:
    sums = _row_sums((weight * places).to(_exact(weight)))
    return (sums / _row_sums(places).clamp_min(1)).to(weight.dtype)


def _exact(tensor: Tensor) -> torch.dtype:
    """Single precision at least."""
    return torch.promote_types(tensor.dtype, torch.float32)

"""The layer whose pruned weights are their mean: a sparse weight and one sum over the inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bequest.sparse.bits import pack, packed_size, unpack
from bequest.sparse.geometry import LayerGeometry, Plain, copied
from bequest.sparse.remains import Remains, Scope


class Recovered(nn.Module):
    """y_i = Σ_j S_ij x_j + c_i Σ_j x_j [+ d_i (Σ_P x_j − Σ_N x_j)] + bias_i.

    j runs over what the filter reads. S is sparse: w_ij − c_i where a weight stayed and 0 where it
    was pruned, so that the whole weight is w_ij where one stayed and c_i elsewhere. Σ_j x_j is one
    sum for all filters of a layer (one per group of a grouped convolution).

    With the scope "signed" the pruned places P of weights above 0 hold c_i + d_i, the other pruned
    places N hold c_i − d_i.

    Args:
        geometry: of the layer.
        sparse: S.
        constant: c, (out,).
        bias: (out,) or None.
        deviation: d, (out,), or None.
        places: the pruned places P ∪ N, packed; with ``deviation`` only.
        signs: P, packed; with ``deviation`` only.
        trained: whether S, c and d take part in training; of the bias, it is itself asked.
    """

    places: Tensor
    signs: Tensor

    def __init__(
        self,
        geometry: LayerGeometry,
        sparse: Tensor,
        constant: Tensor,
        bias: Tensor | None,
        deviation: Tensor | None = None,
        places: Tensor | None = None,
        signs: Tensor | None = None,
        *,
        trained: bool = True,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.sparse = nn.Parameter(sparse, requires_grad=trained)
        self.constant = nn.Parameter(constant, requires_grad=trained)
        self.bias = None if bias is None else copied(bias)
        self.deviation = None if deviation is None else nn.Parameter(deviation, trained)
        if deviation is not None:
            self.register_buffer("places", places)
            self.register_buffer("signs", signs)

    @classmethod
    def of(cls, layer: Plain, scope: Scope) -> Recovered:
        """The recovered form of a layer that :func:`bequest.hypersphere.prune` pruned."""
        remains = Remains.stored(layer)
        constants = remains.constants(scope)
        middle = constants.mean(dim=1)
        weight = layer.weight.detach()
        # In place, which keeps the weight's memory format.
        sparse = (weight - _per_row(middle, weight)).masked_fill_(remains.places, 0)
        form = LayerGeometry.of(layer), sparse, middle, layer.bias
        trained = layer.weight.requires_grad
        if scope != "signed":
            return cls(*form, trained=trained)
        deviation = (constants[:, 0] - constants[:, 1]) / 2
        bits = pack(remains.places), pack(remains.positive)
        return cls(*form, deviation, *bits, trained=trained)

    @classmethod
    def empty(cls, layer: Plain, signed: bool) -> Recovered:
        """One of the same shapes as :meth:`of` gives, for values to be loaded into."""
        weight = layer.weight.detach()
        row = weight.new_zeros(len(weight))
        form = LayerGeometry.of(layer), torch.zeros_like(weight), row, layer.bias
        trained = layer.weight.requires_grad
        if not signed:
            return cls(*form, trained=trained)
        size = packed_size(weight.numel())
        bits = torch.zeros(size, dtype=torch.uint8, device=weight.device)
        return cls(*form, row.clone(), bits, bits.clone(), trained=trained)

    @property
    def weight(self) -> Tensor:
        """The whole weight, dense: what a plain layer would hold."""
        return self._varying() + _per_row(self.constant, self.sparse)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *size) → (B, out, *size'); (..., in) → (..., out) for a linear layer."""
        exact = torch.promote_types(x.dtype, torch.float32)  # half precision counts to 65,504
        sums = self.geometry.patch_sum(x.to(exact))
        means = (self.geometry.over_positions(self.constant) * sums).to(x.dtype)
        return self.geometry(x, self._varying(), self.bias) + means

    def extra_repr(self) -> str:
        """Sizes and form."""
        return f"{self.geometry.describe()}, signed={self.deviation is not None}"

    def _varying(self) -> Tensor:
        """All but c."""
        if self.deviation is None:
            return self.sparse
        shape = self.sparse.shape
        signs = torch.where(unpack(self.signs, shape), 1, -1) * unpack(self.places, shape)
        return self.sparse + _per_row(self.deviation, self.sparse) * signs


def _per_row(values: Tensor, weight: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (weight.ndim - 1))

"""First and second moments of what a layer reads and of what its outputs lack, over real rows.

They are sums over the rows of a walk, all that a least-squares fit of the layer needs. (The
restorer :mod:`bequest.restorers.moments` looks at no rows: it foretells moments from weights.)
"""

from __future__ import annotations

import torch
from torch import Tensor, linalg, nn

from bequest.errors import ModelError
from bequest.graph.patches import (
    channel_major,
    outputs_at,
    patches,
    place_count,
    row_length,
    weight_rows,
)
from bequest.graph.walk import Layer
from bequest.randomness import stream

ROWS_PER_UNKNOWN = 128
"""Rows per input of a layer: more of them hardly tell more."""

AT_ONCE = 2**26
"""Bytes of rows that are gathered before their products are added to the sums."""


class Moments:
    """Sums over rows x and errors e of one layer, in float64, gathered chunk by chunk.

    The errors are what the layer should write less what it writes with the weight and bias that
    it has when it is first looked at. Inputs are in the order channels × kernel positions.

    Attributes:
        rows: number of rows.
        gram: Σ x·xᵀ, (g, d, d).
        cross: Σ x·eᵀ, (g, d, o).
        sums: Σ x, (g, d).
        errors: Σ e, (g, o).
        square: Σ ‖e‖².
        spread: Σ ‖y − mean‖² of the outputs wanted.
    """

    def __init__(self, module: nn.Module, places: Tensor | None) -> None:
        self.module = module
        self.places = places
        self._weight = weight_rows(module).detach()
        g, o, d = self._weight.shape
        bias = module._parameters.get("bias")
        held = self._weight.new_zeros(g * o) if bias is None else bias.detach()
        self._bias = held.view(g, 1, o)
        self._order = channel_major(module)
        self.rows = 0
        self.gram = self._weight.new_zeros(g, d, d, dtype=torch.float64)
        self.cross = self._weight.new_zeros(g, d, o, dtype=torch.float64)
        self.sums = self._weight.new_zeros(g, d, dtype=torch.float64)
        self.errors = self._weight.new_zeros(g, o, dtype=torch.float64)
        self.square = self.spread = 0.0

    def add(self, x: Tensor, target: Tensor) -> None:
        """Adds the rows of one chunk: what the layer reads, and what it should write."""
        places = place_count(self.module, target.shape) if self.places is None else len(self.places)
        row = self._weight.shape[0] * self._weight.shape[2] * x.itemsize
        batch = max(1, AT_ONCE // (places * row))
        for first in range(0, len(x), batch):
            part = slice(first, first + batch)
            self._add(
                patches(self.module, x[part], target.shape, self.places),
                outputs_at(self.module, target[part], self.places),
            )

    def _add(self, rows: Tensor, outputs: Tensor) -> None:
        errors = outputs - self._bias - rows @ self._weight.mT
        self.rows += rows.shape[1]
        order = self._order
        self.gram += (rows.mT @ rows)[:, order[:, None], order].double()
        self.cross += (rows.mT @ errors)[:, order].double()
        self.sums += rows.sum(1)[:, order].double()
        self.errors += errors.sum(1).double()
        self.square += float(linalg.vector_norm(errors)) ** 2
        self.spread += _spread(outputs)

    def check(self, name: str) -> None:
        """Refuses what no regression can be made of.

        Raises:
            ModelError: the layer ``name`` reads or should write values that are not finite.
        """
        if not (self.gram.isfinite().all() and self.cross.isfinite().all()):
            raise ModelError(
                f"regression: expected finite inputs and outputs of layer '{name}', found NaN or "
                "infinity; look for such values in the weights and batch-norm statistics before it"
            )

    def centred(self) -> tuple[Tensor, Tensor]:
        """Gram of the rows (g, d, d), and their products with the errors (g, d, o), about means."""
        means = self.sums / self.rows
        gram = self.gram - self.sums[:, :, None] * means[:, None, :]
        return gram, self.cross - means[:, :, None] * self.errors[:, None, :]


def _spread(outputs: Tensor) -> float:
    """Sum of squares about the mean of the chunk."""
    return float(linalg.vector_norm(outputs - outputs.mean(1, keepdim=True))) ** 2


def sampled_places(module: nn.Module, layer: Layer, seed: int) -> Tensor | None:
    """A random part of a layer's output places, where all of them are more than it takes.

    Returns:
        int64, ascending; None = all.
    """
    shape = layer.dense[0].shape
    count = place_count(module, shape)
    samples = shape[0] * len(layer.dense)
    wanted = -(-ROWS_PER_UNKNOWN * row_length(module) // samples)
    if wanted >= count:
        return None
    generator = stream(seed)
    places = torch.randperm(count, generator=generator, device="cpu")[:wanted].sort().values
    return places.to(layer.dense[0].device)

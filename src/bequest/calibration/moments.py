"""First and second moments of what a layer reads and of what its outputs lack, over real rows.

They are sums over the rows of a walk, all that a least-squares fit of the layer needs. (The
restorer :mod:`bequest.restorers.moments` looks at no rows: it foretells moments from weights.)

Inputs may lie far from zero and hardly vary, so everything is summed about a first estimate of its
mean: of a second moment less a squared mean, rounding leaves nothing but itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy

import torch
from torch import Tensor

from bequest.calibration.layers import Call
from bequest.calibration.patches import (
    channel_major,
    channel_means,
    outputs_at,
    patches,
    place_count,
    spread_out,
    weight_rows,
)
from bequest.errors import ModelError
from bequest.execution.randomness import stream
from bequest.graph.geometry import Geometry

ROWS_PER_UNKNOWN = 128
"""Rows per input of a layer: more of them hardly tell more."""

AT_ONCE = 2**26
"""Bytes of rows that are gathered before their products are added to the sums."""

ROUNDINGS = 64
"""Standard deviation of an input, in machine epsilons of its root mean square, that may be rounding
and no more: sums of products that nearly cancel lose a few bits."""


class Moments:
    """Sums over rows x and errors e of one layer, in float64, gathered chunk by chunk.

    The errors are what the layer should write less what it writes with the weight and bias that
    it has when it is first looked at. Inputs are in the order channels × kernel positions. x′ and
    e′ are x and e less first estimates of their means, which the first rows give.

    Args:
        geometry: of the layer's operator.
        weight: its weight.
        bias: its bias, or None.
        like: the moments of another layer over the same rows x, which need not be summed again.

    Attributes:
        rows: number of rows.
        gram: Σ x′·x′ᵀ, (g, d, d).
        cross: Σ x′·e′ᵀ, (g, d, o).
        sums: Σ x′, (g, d).
        errors: Σ e′, (g, o).
    """

    def __init__(
        self, geometry: Geometry, weight: Tensor, bias: Tensor | None, like: Moments | None = None
    ) -> None:
        self._weight = weight_rows(geometry, weight.detach())
        g, o, d = self._weight.shape
        held = self._weight.new_zeros(g * o) if bias is None else bias.detach()
        self._bias = held.view(g, 1, o)
        self._order = None if geometry.linear else channel_major(geometry, d).to(weight.device)
        self._shift: Tensor | None = None
        self._about: Tensor
        self._constant: Tensor | None = None
        self._like = like
        self.rows = 0
        if like is None:
            self.gram = self._weight.new_zeros(g, d, d, dtype=torch.float64)
            self.sums = self._weight.new_zeros(g, d, dtype=torch.float64)
        else:
            self.gram, self.sums = like.gram, like.sums
            self._shift, self._about = like._shift, like._about
        self.cross = self._weight.new_zeros(g, d, o, dtype=torch.float64)
        self.errors = self._weight.new_zeros(g, o, dtype=torch.float64)

    def alone(self) -> Moments:
        """The same without errors: what another layer over the same rows may share."""
        shared = copy(self)
        shared.cross, shared.errors = (one.new_zeros(0) for one in (self.cross, self.errors))
        return shared

    @property
    def unknowns(self) -> int:
        """Number of inputs of each output, d."""
        return self._weight.shape[2]

    @property
    def epsilon(self) -> float:
        """ε of the precision that the rows and their products are in."""
        return torch.finfo(self._weight.dtype).eps

    def add(
        self,
        geometry: Geometry,
        inputs: Iterable[Tensor],
        targets: Iterable[Tensor],
        places: Tensor | None = None,
    ) -> None:
        """Adds the rows of all chunks that an operator reads.

        Args:
            geometry: of the operator; several may share the weight.
            inputs: what it reads, by chunk.
            targets: what it should write, by chunk.
            places: the output places that are looked at (:func:`sampled_places`); None = all.
        """
        gathered: list[tuple[Tensor, Tensor]] = []
        for pair in zip(inputs, targets, strict=True):
            alone = pair[0].ndim < len(geometry.kernel) + 2  # one sample, without a batch
            x, target = (one[None] if alone else one for one in pair)
            count = place_count(geometry, target.shape) if places is None else len(places)
            row = self._weight.shape[0] * self.unknowns * x.itemsize
            for part in _parts(len(x), max(1, AT_ONCE // (count * row))):
                gathered.append(self._rows(geometry, x[part], target[part], places))
                if sum(rows.nbytes + errors.nbytes for rows, errors in gathered) >= AT_ONCE:
                    self._sum(gathered)
        self._sum(gathered)

    def _rows(
        self, geometry: Geometry, x: Tensor, target: Tensor, places: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x′ and e′ of some inputs, (g, rows, d) and (g, rows, o)."""
        if self._shift is None:
            self._shift = channel_means(geometry, x).to(x.dtype)
            self._about = spread_out(geometry, self._shift).double()
        rows = patches(geometry, x, target.shape, places, self._shift)
        outputs = outputs_at(geometry, target, places)
        if self._constant is None:
            self._constant = self._first_constant(rows, outputs)
        return rows, torch.baddbmm(outputs - self._constant, rows, self._weight.mT, alpha=-1)

    def _sum(self, gathered: list[tuple[Tensor, Tensor]]) -> None:
        """Adds the products of what was gathered, and empties it."""
        if not gathered:
            return
        rows, errors = (_joined(each) for each in zip(*gathered, strict=True))
        gathered.clear()
        self.rows += rows.shape[1]
        if self._like is None:
            gram = rows.mT @ rows
            self.gram += self._in_order(self._in_order(gram).mT).mT
            self.sums += self._in_order(rows.sum(1))
        self.cross += self._in_order(rows.mT @ errors)
        self.errors += errors.sum(1)

    def _in_order(self, values: Tensor) -> Tensor:
        """Values by input, from the order of rows to channels × kernel positions."""
        return values if self._order is None else values[:, self._order]

    def _first_constant(self, rows: Tensor, outputs: Tensor) -> Tensor:
        """What is taken off the outputs, (g, 1, o), besides W·x′: e′ = y − constant − W·x′."""
        weight = self._weight.double()
        mean = rows.mean(1, keepdim=True, dtype=torch.float64)
        constant = outputs.mean(1, keepdim=True, dtype=torch.float64) - mean @ weight.mT
        return constant.to(outputs.dtype)

    def check(self, name: str) -> None:
        """Refuses what no regression can be made of.

        Raises:
            ModelError: the layer ``name`` reads or should write values that are not finite.
        """
        if not (self.gram.isfinite().all() and self.cross.isfinite().all()):
            raise ModelError(
                f"expected finite inputs and outputs of layer '{name}', found NaN or infinity; "
                "look for such values in the weights and batch-norm statistics before it"
            )

    def means(self) -> tuple[Tensor, Tensor]:
        """Means of x (g, d) and of e (g, o)."""
        assert self._constant is not None
        still = self._about
        if self._order is not None:
            still = torch.empty_like(self._about)
            still[:, self._order] = self._about  # in the order of the weight's rows
        written = self._bias.double() + (self._weight.double() @ still[:, :, None]).mT
        e = (self._constant.double() - written)[:, 0] + self.errors / self.rows
        return self._about + self.sums / self.rows, e

    def centred(self) -> tuple[Tensor, Tensor]:
        """Gram of the rows (g, d, d), and their products with the errors (g, d, o), about means.

        Zero for inputs that vary by no more than rounding, a standard deviation of
        :data:`ROUNDINGS` · ε times the root mean square, ε of the precision that the rows are in:
        whatever goes with such a variation is chance.
        """
        means = self.sums / self.rows
        gram = torch.baddbmm(self.gram, self.sums[:, :, None], means[:, None, :], alpha=-1)
        cross = torch.baddbmm(self.cross, means[:, :, None], self.errors[:, None, :], alpha=-1)
        varies = gram.diagonal(dim1=1, dim2=2) > self.rounding()
        if bool(varies.all()):
            return gram, cross
        return gram * (varies[:, :, None] & varies[:, None, :]), cross * varies[:, :, None]

    def about_zero(self, gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        """Those about means moved to zero, in place: Σ x·xᵀ and Σ x·eᵀ."""
        x, e = self.means()
        gram.baddbmm_(x[:, :, None], x[:, None, :], alpha=self.rows)
        cross.baddbmm_(x[:, :, None], e[:, None, :], alpha=self.rows)
        return gram, cross

    def rounding(self) -> Tensor:
        """What Σ (x − mean)² of an input may be by rounding alone, (g, d)."""
        square = self.gram.diagonal(dim1=1, dim2=2) + self.rows * self.means()[0].square()
        return (ROUNDINGS * self.epsilon) ** 2 * square


def _parts(length: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, length, size))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Rows one below the other; of one part itself, without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def sampled_places(call: Call, unknowns: int, seed: int) -> Tensor | None:
    """A random part of a layer's output places, where all of them are more than it takes.

    Args:
        call: of the layer.
        unknowns: number of inputs of each output.
        seed: of the draw.

    Returns:
        int64, ascending; None = all.
    """
    shape = call.dense[0].shape
    count = place_count(call.geometry, shape)
    samples = shape[0] * len(call.dense)
    wanted = -(-ROWS_PER_UNKNOWN * unknowns // samples)
    if wanted >= count:
        return None
    generator = stream(seed)
    places = torch.randperm(count, generator=generator, device="cpu")[:wanted].sort().values
    return places.to(call.dense[0].device)

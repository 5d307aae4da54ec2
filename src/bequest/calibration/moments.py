"""First and second moments of what a layer reads and of what its outputs lack, over real rows.

They are sums over the rows of a walk, all that a least-squares fit of the layer needs. (The
restorer :mod:`bequest.restorers.moments` looks at no rows: it foretells moments from weights.)

Inputs may lie far from zero and hardly vary, so everything is summed about a first estimate of its
mean: of a second moment less a squared mean, rounding leaves nothing but itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

import torch
from torch import Tensor

from bequest.calibration.patches import channel_major, channel_means, spread_out, weight_rows
from bequest.calibration.rows import gathered, gram
from bequest.errors import ModelError
from bequest.graph.geometry import Geometry

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
        self._bias = held.view(g, o)
        self._order = None if geometry.linear else channel_major(geometry, d).to(weight.device)
        self._shift: Tensor | None = None
        self._about: Tensor
        self._constant: Tensor | None = None
        self._offset: Tensor
        self._lack: _Lack | None = None
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
        inputs: Sequence[Tensor],
        targets: Sequence[Tensor],
        places: Tensor | None = None,
    ) -> None:
        """Adds the rows of all chunks that an operator reads.

        Args:
            geometry: of the operator; several may share the weight.
            inputs: what it reads, by chunk.
            targets: what it should write, by chunk.
            places: the output places that are looked at; None = all.
        """
        for rows, outputs in self._rows(geometry, inputs, targets, places):
            if self._constant is None:
                self._constant = self._first_constant(rows, outputs)
            errors = torch.baddbmm(outputs - self._constant, rows, self._weight.mT, alpha=-1)
            self._sum(rows)
            self.cross += self._in_order(rows.mT @ errors)
            self.errors += errors.sum(1)

    def add_lacking(
        self, geometry: Geometry, inputs: Sequence[Tensor], lack: Sequence[Tensor]
    ) -> None:
        """The same for a linear layer all of whose error stems from its inputs: e = W·m.

        Products with m, d per input and row in place of 2·o, serve every layer over the rows.

        Args:
            geometry: of the operator.
            inputs: what it reads, by chunk.
            lack: m, what it should read less what it reads, likewise.
        """
        like = self._like
        if like is not None and like._lack is not None:
            found, self.rows = like._lack, like.rows
        else:
            found = _Lack(self._weight)
            for rows, missing in self._rows(geometry, inputs, lack, None):
                self._sum(rows)
                found.add(rows, missing)
        self._lack = found
        self.cross = (found.cross.to(self._weight) @ self._weight.mT).double()
        self.errors, self._offset = (
            (each.to(self._weight) @ self._weight.mT)[:, 0].double()
            for each in (found.sums[:, None], found.mean)
        )

    def look_at(
        self, geometry: Geometry, inputs: Sequence[Tensor], outputs: Sequence[Tensor],
        places: Tensor | None,
    ) -> None:  # fmt: skip
        """Adds rows alone, of a layer without error; ``outputs`` have the shapes that it writes."""
        for rows, _ in self._rows(geometry, inputs, outputs, places):
            self._sum(rows)

    def _rows(
        self,
        geometry: Geometry,
        inputs: Sequence[Tensor],
        others: Sequence[Tensor],
        places: Tensor | None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """x′ and what goes with it, many rows at a time."""
        if self._shift is None:
            self._shift = channel_means(geometry, inputs[0]).to(inputs[0].dtype)
            self._about = spread_out(geometry, self._shift).double()
        return gathered(geometry, inputs, others, places, self._shift)

    def _sum(self, rows: Tensor) -> None:
        """Adds the rows and their products with themselves."""
        self.rows += rows.shape[1]
        if self._like is None:
            self.gram += self._in_order(self._in_order(gram(rows)).mT).mT
            self.sums += self._in_order(rows.sum(1))

    def _in_order(self, values: Tensor) -> Tensor:
        """Values by input, from the order of rows to channels × kernel positions."""
        return values if self._order is None else values[:, self._order]

    def _first_constant(self, rows: Tensor, outputs: Tensor) -> Tensor:
        """What is taken off the outputs, (g, 1, o), besides W·x′: e′ = y − constant − W·x′."""
        weight = self._weight.double()
        mean = rows.mean(1, keepdim=True, dtype=torch.float64)
        constant = outputs.mean(1, keepdim=True, dtype=torch.float64) - mean @ weight.mT
        constant = constant.to(outputs.dtype)
        still = self._about
        if self._order is not None:
            still = torch.empty_like(self._about)
            still[:, self._order] = self._about  # in the order of the weight's rows
        written = self._bias.double() + (weight @ still[:, :, None])[:, :, 0]
        self._offset = constant[:, 0].double() - written
        return constant

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
        return self._about + self.sums / self.rows, self._offset + self.errors / self.rows

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
        square = (
            self.gram.diagonal(dim1=1, dim2=2)
            + self.rows * (self._about + self.sums / self.rows).square()
        )
        return (ROUNDINGS * self.epsilon) ** 2 * square


class _Lack:
    """Products of rows x with what they lack, m, less a first estimate of its mean.

    Attributes:
        cross: Σ x′·m′ᵀ, (1, d, d).
        sums: Σ m′, (1, d).
        first: the mean that is taken off, (1, 1, d), of the first rows; None before them.
    """

    def __init__(self, like: Tensor) -> None:
        g, _, d = like.shape
        self.cross = like.new_zeros(g, d, d, dtype=torch.float64)
        self.sums = like.new_zeros(g, d, dtype=torch.float64)
        self.first: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """That which is taken off."""
        assert self.first is not None
        return self.first

    def add(self, rows: Tensor, missing: Tensor) -> None:
        """Adds rows and what they lack."""
        if self.first is None:
            self.first = missing.mean(1, keepdim=True, dtype=torch.float64).to(missing)
        centred = missing - self.first
        self.cross += rows.mT @ centred
        self.sums += centred.sum(1)

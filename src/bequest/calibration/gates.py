"""Recurrent layers as a walk meets them: their gates are linear layers of inputs and outputs.

Before their functions, the gates of a cell are W_ih·x + b_ih + W_hh·h + b_hh
(:mod:`bequest.graph.recurrence`): a linear layer of x and h side by side. x is what the pruned
stream has. h is what the dense stream has, without the units that leave (teacher forcing): every
step is looked at by itself, and no error is carried on. The new gate of a GRU scales W_hh·h + b_hh
before it adds the rest, so its two terms are layers by themselves; so is a projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, fx
from torch.nn.functional import linear

from bequest.calibration.layers import Call, Layer
from bequest.calibration.spill import Mapped
from bequest.calibration.walk import Walk
from bequest.graph.geometry import Geometry, arguments
from bequest.graph.ledger import Labels, Layout
from bequest.graph.recurrence import Cell, Passed, cells_of, joined, pass_layer, time_first
from bequest.graph.trace import operator_of


@dataclass(frozen=True)
class Gates:
    """Rows of a cell's weights as one linear layer.

    Attributes:
        layer: with one call, whose inputs lie side by side: (b, t, inputs).
        weights: names of the weights that read them, in that order.
        biases: names of those that are added; nothing else reads these.
        rows: which rows of all of these in the pruned network.
        loses_inputs: whether channels that they read have left.
    """

    layer: Layer
    weights: tuple[str, ...]
    biases: tuple[str, ...]
    rows: slice
    loses_inputs: bool


def gates(walk: Walk, node: fx.Node) -> Iterator[Gates]:
    """The gates of a recurrent operator, in order of execution, cell by cell.

    Whoever iterates may change weights and biases: what follows is of the changed ones.

    Args:
        walk: that has run the operator in the dense stream alone.
        node: the operator; nothing else reads its weights.
    """
    data: fx.Node = arguments(node)["input"]
    differs, count = walk.differs(data), walk.count(data)

    def given(dense: bool) -> Sequence[Tensor]:
        return Mapped(lambda i: time_first(node, walk.operand(data, i, dense=dense)), count)

    dense, pruned = given(True), given(False)
    for number, cells in enumerate(cells_of(node)):
        layer = _Passing(walk, node, number, dense, pruned)
        met = [differs or walk.cut.narrows(cell.weight_hh) for cell in cells]
        for direction, cell in enumerate(cells):
            if met[direction]:
                yield from _Cell(layer, cell, direction).gates()
        differs = any(met)
        dense, pruned = layer.outputs(differs)


class _Passing:
    """One layer of both streams, by chunk; sequences are (t, b, channels)."""

    def __init__(
        self,
        walk: Walk,
        node: fx.Node,
        number: int,
        dense: Sequence[Tensor],
        pruned: Sequence[Tensor],
    ) -> None:
        self.walk, self.node, self._number = walk, node, number
        self.inputs, self._dense = pruned, dense
        self.dense = lru_cache(1)(partial(self._passed, dense=True))

    def outputs(self, differs: bool) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Those of the dense stream, and of the pruned one with the weights that it has now."""
        numbers = range(len(self._dense))
        dense = self.walk.keep(joined(self.dense(i)) for i in numbers)
        if not differs:
            return dense, dense
        return dense, self.walk.keep(joined(self._passed(i, dense=False)) for i in numbers)

    def _passed(self, chunk: int, *, dense: bool) -> tuple[Passed, ...]:
        x = (self._dense if dense else self.inputs)[chunk]
        value = partial(self.walk.operand, number=chunk, dense=dense)
        return pass_layer(self.node, self._number, x, value)


class _Cell:
    """A cell of a layer, in terms of what its weights read."""

    def __init__(self, layer: _Passing, cell: Cell, direction: int) -> None:
        self.layer, self.cell, self.direction = layer, cell, direction
        self.walk, self.names = layer.walk, layer.walk.reading.network.tensors

    def gates(self) -> Iterator[Gates]:
        """Its layers, and a projection behind them."""
        cell = self.cell
        inputs, states = (cell.weight_ih, cell.bias_ih), (cell.weight_hh, cell.bias_hh)
        if operator_of(self.layer.node) == "gru":
            size = len(self.walk.cut.kept(self._labels(cell.weight_ih, 0)))
            first = slice(size // 3 * 2)
            last = slice(size // 3 * 2, size)
            yield self._gates([inputs, states], first)
            yield self._gates([inputs], last)
            yield self._gates([states], last)
        else:
            yield self._gates([inputs, states], slice(None))
        if cell.weight_hr is not None:
            yield self._gates([(cell.weight_hr, None)], slice(None))

    def _gates(self, terms: Sequence[tuple[fx.Node, fx.Node | None]], rows: slice) -> Gates:
        weights = tuple(self.names[weight.name] for weight, _ in terms)
        biases = tuple(self.names[bias.name] for _, bias in terms if bias is not None)
        count = len(self.layer.inputs)
        call = Call(
            self.layer.node,
            Geometry(linear=True),
            biases[0] if biases else None,
            Mapped(lambda i: self._read(terms, i), count),
            Mapped(lambda i: self._wanted(terms, rows, i), count),
        )
        gone = any(self.walk.cut.gone(self._labels(weight, 1)).any() for weight, _ in terms)
        return Gates(Layer(weights[-1], weights[-1], (call,), 1), weights, biases, rows, gone)

    def _read(self, terms: Sequence[tuple[fx.Node, fx.Node | None]], chunk: int) -> Tensor:
        """What the weights read in the pruned network, side by side, (b, t, inputs)."""
        passed = self.layer.dense(chunk)[self.direction]
        parts = []
        for weight, _ in terms:
            if weight is self.cell.weight_ih:
                parts.append(self.layer.inputs[chunk])
            else:
                kept = self.walk.cut.kept(self._labels(weight, 1)).to(passed.before.device)
                parts.append(self._of_dense(passed, weight).index_select(-1, kept))
        return torch.cat(parts, -1).transpose(0, 1)

    def _wanted(
        self, terms: Sequence[tuple[fx.Node, fx.Node | None]], rows: slice, chunk: int
    ) -> Tensor:
        """What the dense network makes of them, in the rows that stay, (b, t, rows)."""
        passed = self.layer.dense(chunk)[self.direction]
        kept = self.walk.cut.kept(self._labels(terms[0][0], 0))[rows].to(passed.before.device)
        total: Tensor | None = None
        for weight, bias in terms:
            matrix = self.walk.operand(weight, chunk, dense=True)[kept]
            added = None if bias is None else self.walk.operand(bias, chunk, dense=True)[kept]
            term = linear(self._of_dense(passed, weight), matrix, added)
            total = term if total is None else total + term
        assert total is not None
        return total.transpose(0, 1)

    def _of_dense(self, passed: Passed, weight: fx.Node) -> Tensor:
        cell = self.cell
        if weight is cell.weight_ih:
            return passed.inputs
        return passed.before if weight is cell.weight_hh else passed.hidden

    def _labels(self, weight: fx.Node, dim: int) -> Labels:
        layout = self.walk.cut.layout(weight)
        assert isinstance(layout, Layout)
        labels = layout.dims[dim]
        assert labels is not None
        return labels

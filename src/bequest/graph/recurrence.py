"""What recurrent layers compute, cell by cell: what each weight is multiplied with at every step.

One operator runs all layers and directions. A cell is one layer in one direction:

    LSTM  [i f g o] = W_ih·x + b_ih + W_hh·h + b_hh,
          c ← σ(f)·c + σ(i)·tanh(g),  m = σ(o)·tanh(c)
    GRU   [r z] likewise,  n = tanh(W_in·x + b_in + σ(r)·(W_hn·h + b_hn)),
          m = (1 − σ(z))·n + σ(z)·h
    RNN   m = f(W_ih·x + b_ih + W_hh·h + b_hh)

h is the output of the step before, which is m, or W_hr·m where there is a projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from bequest.graph.geometry import arguments
from bequest.graph.trace import operator_of

_OPERATORS = frozenset("lstm gru rnn_tanh rnn_relu".split())


@dataclass(frozen=True)
class Cell:
    """The tensors of one layer in one direction, as nodes of the graph."""

    weight_ih: fx.Node
    weight_hh: fx.Node
    bias_ih: fx.Node | None = None
    bias_hh: fx.Node | None = None
    weight_hr: fx.Node | None = None

    @property
    def tensors(self) -> tuple[fx.Node, ...]:
        """Those that there are, in the order in which operators take them."""
        everyone = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.weight_hr
        return tuple(one for one in everyone if one is not None)


class Passed(NamedTuple):
    """A sequence on its way through a cell; places of time are those of the sequence.

    Attributes:
        inputs: x, (t, b, d).
        before: h, (t, b, p).
        hidden: m, (t, b, n).
        outputs: (t, b, p); the same where there is no projection.
    """

    inputs: Tensor
    before: Tensor
    hidden: Tensor
    outputs: Tensor


def is_recurrent(node: fx.Node) -> bool:
    """Whether an operator runs recurrent layers over whole sequences, none of which is packed."""
    named = node.op == "call_function" and operator_of(node) in _OPERATORS
    return named and "batch_sizes" not in arguments(node)


def cells_of(node: fx.Node) -> list[list[Cell]]:
    """The cells of a recurrent operator: a list of its directions for every layer."""
    given = arguments(node)
    tensors, directions = given["params"], 2 if given["bidirectional"] else 1
    layers = int(given["num_layers"])
    each = len(tensors) // (layers * directions)
    projected = operator_of(node) == "lstm" and each in (3, 5)
    found = []
    for first in range(0, len(tensors), each):
        own = list(tensors[first : first + each])
        projection = own.pop() if projected else None
        bias_ih, bias_hh = own[2:] or (None, None)
        found.append(Cell(own[0], own[1], bias_ih, bias_hh, projection))
    return [found[first : first + directions] for first in range(0, len(found), directions)]


def tensors_of(node: fx.Node) -> list[fx.Node]:
    """All weights and biases of a recurrent operator."""
    return [tensor for cells in cells_of(node) for cell in cells for tensor in cell.tensors]


def states_of(node: fx.Node) -> list[fx.Node]:
    """The first states: of an LSTM the outputs and the sums c, else the outputs."""
    states = arguments(node)["hx"]
    return list(states) if isinstance(states, list | tuple) else [states]


def time_first(node: fx.Node, sequences: Tensor) -> Tensor:
    """What a recurrent operator reads or writes as (t, b, channels), or back again."""
    return sequences.transpose(0, 1) if arguments(node)["batch_first"] else sequences


def pass_layer(
    node: fx.Node, layer: int, x: Tensor, value: Callable[[fx.Node], Any]
) -> tuple[Passed, ...]:
    """Runs one layer of a recurrent operator.

    Args:
        node: the operator.
        layer: its number.
        x: what it reads, (t, b, d).
        value: of the operator's other operands.

    Returns:
        For every direction.
    """
    cells = cells_of(node)[layer]
    found = []
    for direction, cell in enumerate(cells):
        number = layer * len(cells) + direction
        states = [value(state)[number : number + 1] for state in states_of(node)]
        given = x.flip(0) if direction else x
        one = _passed(operator_of(node), given, states, [value(t) for t in cell.tensors], cell)
        found.append(Passed(*(part.flip(0) for part in one)) if direction else one)
    return tuple(found)


def joined(passed: Sequence[Passed]) -> Tensor:
    """What a layer writes: the outputs of its directions side by side."""
    return torch.cat([one.outputs for one in passed], dim=-1)


def outputs_of(node: fx.Node, x: Tensor, value: Callable[[fx.Node], Any]) -> Tensor:
    """What a recurrent operator writes when it reads x, both (t, b, channels)."""
    for layer in range(len(cells_of(node))):
        x = joined(pass_layer(node, layer, x, value))
    return x


def read_by_weights(node: fx.Node, value: Callable[[fx.Node], Any]) -> dict[fx.Node, Tensor]:
    """Weight → what it is multiplied with at every step, (t, b, columns)."""
    x = time_first(node, value(arguments(node)["input"]))
    found: dict[fx.Node, Tensor] = {}
    for layer, cells in enumerate(cells_of(node)):
        passed = pass_layer(node, layer, x, value)
        for cell, one in zip(cells, passed, strict=True):
            found |= {cell.weight_ih: one.inputs, cell.weight_hh: one.before}
            if cell.weight_hr is not None:
                found[cell.weight_hr] = one.hidden
        x = joined(passed)
    return found


def _passed(
    kind: str, x: Tensor, states: Sequence[Tensor], tensors: list[Tensor], cell: Cell
) -> Passed:
    """In the direction's own order of time."""
    hx = tuple(states) if kind == "lstm" else states[0]
    biased = cell.bias_ih is not None
    outputs: Tensor = getattr(torch, kind)(x, hx, tensors, biased, 1, 0.0, False, False, False)[0]
    before = torch.cat([states[0], outputs[:-1]])
    hidden = outputs
    if cell.weight_hr is not None:
        hidden = _hidden(x, before, states[1][0], tensors, biased=biased)
    return Passed(x, before, hidden, outputs)


def _hidden(
    x: Tensor, before: Tensor, c: Tensor, tensors: Sequence[Tensor], *, biased: bool
) -> Tensor:
    """σ(o)·tanh(c) of an LSTM whose outputs are projected."""
    gates = x @ tensors[0].T + before @ tensors[1].T
    if biased:
        gates = gates + tensors[2] + tensors[3]
    i, f, g, o = gates.chunk(4, dim=-1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    hidden = []
    for step in range(len(x)):
        c = f[step] * c + i[step] * g[step]
        hidden.append(o[step] * c.tanh())
    return torch.stack(hidden)

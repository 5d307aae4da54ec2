"""Rules for recurrent layers: a hidden unit is its rows in every gate, and what reads it.

The unit j of a layer has row j of each gate's block in ``weight_ih`` (gates·H, inputs),
``weight_hh`` (gates·H, outputs) and both biases. With a projection ``weight_hr`` (P, H) it has a
column there, and the outputs are the projection's rows; without, the outputs are the units. What
reads outputs has their columns: ``weight_hh`` itself, the next layer, the layers behind. A unit
whose weights are all zero stays zero in every step, so it leaves exactly.

All layers and directions have equally many units, as their states are one tensor. Where somebody
reads the last states of several layers, the units j of all of them leave together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import fx

from bequest.graph.geometry import arguments
from bequest.graph.ledger import Labels, Layout
from bequest.graph.reading import Read, Write
from bequest.graph.recurrence import Cell, cells_of, states_of
from bequest.graph.rules.base import Step, rule


@rule("lstm", "gru", "rnn_tanh", "rnn_relu", role="join")
def recurrent(step: Step) -> tuple[Layout, ...]:
    """Layers over a sequence: all outputs, and the last states of every layer and direction."""
    given = arguments(step.node)
    data: fx.Node = given["data" if "data" in given else "input"]
    states = states_of(step.node)
    for labels in (*step.layout(data).dims[:-1], *_fixed_labels(step, given, states)):
        step.hold(labels, "is a step or a sample of a sequence")
    inputs, origin = step.layout(data).dims[-1], step.layout(data).origin
    hidden: list[Labels] = []
    outputs: list[Labels] = []
    for cells in cells_of(step.node):
        written = [_cell(step, cell, inputs, origin) for cell in cells]
        hidden += [own for own, _ in written]
        outputs += [out for _, out in written]
        inputs = np.concatenate([out for _, out in written])
    together = _read(step.node)
    for units in (hidden, outputs)[: 1 if outputs[0] is hidden[0] else 2]:
        _in_step(step, units, together=together)
    for state, units in zip(states, (outputs, hidden), strict=False):
        _start(step, state, units)
    sequence = Layout((*(None,) * (len(step.layout(data).dims) - 1), inputs), step.place)
    last = (Layout((None, None, labels[0]), step.place) for labels in (outputs, hidden))
    return (sequence, *list(last)[: len(states)])


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", role="join")
def recurrent_cell(step: Step) -> Layout | tuple[Layout, ...]:
    """One step of one layer: the new states."""
    given = arguments(step.node)
    states, data = states_of(step.node), step.layout(given["input"])
    tensors = [given[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    units, _ = _cell(step, Cell(*tensors), data.dims[-1], data.origin)
    for state in states:
        _start(step, state, [units])
        for labels in step.layout(state).dims[:-1]:
            step.hold(labels, "is a sample")
    result = Layout((*data.dims[:-1], units), step.place)
    return result if len(states) == 1 else (result, result)


def _cell(step: Step, cell: Cell, inputs: Labels | None, origin: str) -> tuple[Labels, Labels]:
    """Ties the rows and columns of a layer's tensors; its hidden units and its outputs."""
    units = (cell.weight_hr or cell.weight_hh).meta["val"].shape[1]
    gates = _dim(step, cell.weight_ih, 0).reshape(-1, units)
    hidden, rows = gates[0], np.tile(gates[0], len(gates))
    for tensor in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh):
        if tensor is not None:
            step.ledger.tie(rows, _dim(step, tensor, 0))
    out = hidden
    if cell.weight_hr is not None:
        out = _dim(step, cell.weight_hr, 0)
        _reads(step, cell.weight_hr, None, hidden)
        _writes(step, cell.weight_hr, None, out)
    columns = _dim(step, cell.weight_ih, 1)
    if inputs is None:
        step.freeze(columns, f"reads {origin}")
    else:
        _reads(step, cell.weight_ih, cell.bias_ih, inputs)
    # No step lies before the first, so that a constant is none there.
    _reads(step, cell.weight_hh, cell.bias_hh, out, zero_padded=True)
    for weight, bias in ((cell.weight_ih, cell.bias_ih), (cell.weight_hh, cell.bias_hh)):
        _writes(step, weight, bias, rows)
    return hidden, out


def _in_step(step: Step, labels: Sequence[Labels], *, together: bool) -> None:
    """Layers and directions keep equally many units, or the same ones."""
    if together:
        for one in labels[1:]:
            step.ledger.tie(labels[0], one)
    elif len(labels) > 1:
        step.ledger.balance(np.concatenate(labels), len(labels), step.place)


def _start(step: Step, state: fx.Node, labels: Sequence[Labels]) -> None:
    """A first state has the width of all layers: zeros of the code follow it, inputs can't."""
    layout = step.layout(state)
    given = layout.dims[-1]
    if given is None:
        for one in labels:
            step.freeze(one, f"begins as {layout.origin}, whose channels are fixed")
        return
    # Any zeros will do; states that come from elsewhere are those of the same units.
    for one in labels[:1] if step.ledger.is_loose(given) else labels:
        step.ledger.tie(given, one)


def _fixed_labels(
    step: Step, given: dict[str, Any], states: Sequence[fx.Node]
) -> list[Labels | None]:
    """The dimensions of layers and samples, and the lengths of packed sequences."""
    lengths = given.get("batch_sizes")
    layouts = [step.layout(state) for state in states]
    held = [labels for layout in layouts for labels in layout.dims[:-1]]
    return held if lengths is None else [*held, *step.layout(lengths).dims]


def _read(node: fx.Node) -> bool:
    """Whether anybody reads the last states."""
    return any(user.args[1] and user.users for user in node.users)


def _dim(step: Step, tensor: fx.Node, dim: int) -> Labels:
    """The labels of a tensor's dimension; of one that is computed, or of a single channel, new."""
    labels = step.layout(tensor).dims[dim]
    if labels is not None:
        return labels
    return step.ledger.rest(tensor.meta["val"].shape[dim], f"the weight is computed ({step.place})")


def _reads(
    step: Step,
    weight: fx.Node,
    bias: fx.Node | None,
    labels: Labels,
    *,
    zero_padded: bool = False,
) -> None:
    step.ledger.tie(labels, _dim(step, weight, 1))
    names = step.tensor_name(weight), step.tensor_name(bias)
    step.reading.reads.append(Read(step.node, *names, 1, labels, 1, zero_padded))


def _writes(step: Step, weight: fx.Node, bias: fx.Node | None, labels: Labels) -> None:
    names = step.tensor_name(weight), step.tensor_name(bias)
    step.reading.writes.append(Write(step.node, "linear", *names, 0, labels, 1))

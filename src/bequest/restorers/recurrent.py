"""Restorers by walk at recurrent layers: every cell's gates are refitted as a linear layer.

See :mod:`bequest.calibration.gates`. A restorer is asked of gates what it is asked of any layer;
what it says is written to the weights and the bias that they are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx

from bequest.calibration.gates import Gates, gates
from bequest.calibration.layers import Call
from bequest.calibration.walk import Walk
from bequest.graph.geometry import Geometry, arguments
from bequest.graph.recurrence import outputs_of, tensors_of, time_first
from bequest.restorers.held_back import Measure, spread, square
from bequest.restorers.refit import Change, Refit, Seen


class SeenGates(Seen):
    """Gates that read something else than in the dense network, or have lost rows."""

    def __init__(self, refit: Refit, one: Gates) -> None:
        walk, former = refit.walk, refit.former
        # A branch that outputs are added to is no part of what gates are to write.
        super().__init__(walk, one.layer, refit.seed, refit.made_up, False, {}, former, plain=True)
        self.gates = one

    @property
    def weight(self) -> Tensor:
        """What reads the inputs and what reads the outputs, side by side."""
        parts = [tensor_of(self._walk, name)[self.gates.rows] for name in self.gates.weights]
        return torch.cat(parts, dim=1)

    def bias_of(self, call: Call) -> Tensor | None:
        """The sum of those that are added."""
        held = [tensor_of(self._walk, name)[self.gates.rows] for name in self.gates.biases]
        return torch.stack(held).sum(0) if held else None

    def errs_by_inputs(self, call: Call) -> bool:
        """Never: rows have left, too."""
        return False

    @property
    def loses_inputs(self) -> bool:
        """Whether units or inputs that they read have left."""
        return self.gates.loses_inputs

    @cached_property
    def owned(self) -> Mapping[str | None, bool]:
        """The bias that can change."""
        return {self.layer.calls[0].bias: bool(self.gates.biases)}


class RefitRecurrent:
    """Changes the cells of each recurrent operator that a walk meets.

    Args:
        refit: of the walk's other layers, which keeps the account.
    """

    def __init__(self, refit: Refit) -> None:
        self._refit, self._walk = refit, refit.walk

    def __call__(self, node: fx.Node) -> None:
        """Asks for the changes of every cell's gates, in order, and writes them."""
        if not owns_tensors(self._walk, node):
            return
        refit = self._refit
        for one in gates(self._walk, node):
            change = refit.asked(SeenGates(refit, one))
            refit.changes |= dict.fromkeys(one.weights, change.told())
            self._write(one, change)

    def _write(self, one: Gates, change: Change) -> None:
        if change.weight is not None:
            columns = [tensor_of(self._walk, name).shape[1] for name in one.weights]
            for name, part in zip(
                one.weights, torch.split(change.weight, columns, dim=1), strict=True
            ):
                self._raise(name, one.rows, part)
        for bias, gain in change.biases.items():
            assert bias is not None
            self._raise(bias, one.rows, gain.flatten())

    def _raise(self, name: str, rows: slice, gain: Tensor) -> None:
        whole = torch.zeros_like(tensor_of(self._walk, name), dtype=torch.float64)
        whole[rows] = gain
        self._refit.raise_by(name, whole)


class MeasureRecurrent:
    """Measures the errors of the outputs of each recurrent operator that a walk meets.

    Args:
        measure: of the walk's other layers, which keeps the account: all weights of an operator
            have the errors of its outputs.
        changed: by name of a weight.
    """

    def __init__(self, measure: Measure, changed: Mapping[str, Change]) -> None:
        self._measure, self._changed = measure, changed

    def __call__(self, node: fx.Node) -> None:
        """Adds the operator's squares."""
        walk = self._measure.walk
        names = walk.reading.network.tensors
        held = (names[one.name] for one in tensors_of(node) if one.name in names)
        refitted = [name for name in held if name in self._changed]
        if not refitted:
            return
        layouts, dense = walk.cut.layout(node), list[Tensor]()
        assert isinstance(layouts, tuple)
        labels = layouts[0].dims[-1]
        assert labels is not None
        data: fx.Node = arguments(node)["input"]
        before, after = list[Tensor](), list[Tensor]()
        for number in range(walk.count(data)):
            wanted: Tensor = walk.operand(node, number, dense=True)[0]
            dense.append(wanted.index_select(-1, walk.cut.kept(labels).to(wanted.device)))
            x = time_first(node, walk.operand(data, number, dense=False))
            for found, former in ((before, True), (after, False)):
                value = partial(self._operand, number, former)
                found.append(square(dense[-1] - time_first(node, outputs_of(node, x, value))))
        squares = torch.stack([torch.cat(before), torch.cat(after), spread(LINEAR, dense)], 1)
        for name in refitted:
            self._measure.add(name, [squares])

    def _operand(self, number: int, former: bool, node: fx.Node) -> Any:
        """Of the pruned stream; tensors as the surgery had left them, if asked for."""
        walk = self._measure.walk
        value, name = (
            walk.operand(node, number, dense=False),
            walk.reading.network.tensors.get(node.name),
        )
        return self._measure.former.get(name, value) if former and name is not None else value


def owns_tensors(walk: Walk, node: fx.Node) -> bool:
    """Whether nothing but the recurrent operator reads its tensors, none of them computed."""
    names = walk.reading.network.tensors
    return all(one.name in names and len(one.users) == 1 for one in tensors_of(node))


def tensor_of(walk: Walk, name: str) -> Tensor:
    """A weight or bias of the pruned network as it is now."""
    tensor = walk.tensor(name)
    assert tensor is not None
    return tensor.detach()


LINEAR = Geometry(linear=True)

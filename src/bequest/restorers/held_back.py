"""Inputs that no layer was fitted to, and the errors that the finished network makes on them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from bequest.calibration.layers import Call, Layer
from bequest.calibration.moments import ROUNDINGS
from bequest.calibration.samples import Samples
from bequest.calibration.spill import Mapped
from bequest.calibration.walk import Walk
from bequest.graph.geometry import Geometry
from bequest.restorers.former import Former
from bequest.restorers.wanted import Branch, branch

HELD_BACK = 0.1
"""Share of the inputs; at least one chunk."""


def split(samples: Samples) -> tuple[Samples, Samples]:
    """What layers are fitted to, and what the outcome is measured on.

    Whole chunks are held back, so that no layer has met any of their inputs in any form: the first
    ones, or from the second on where the last is filled up with inputs of the first. A single chunk
    has to do for both.
    """
    count = len(samples.chunks)
    if count == 1:
        return samples, samples
    first = min(1, count - 2) if samples.repeated else 0
    last = first + max(1, round(HELD_BACK * count))
    fitted = samples.chunks[:first] + samples.chunks[last:]
    return replace(samples, chunks=fitted), replace(samples, chunks=samples.chunks[first:last])


class Errors(NamedTuple):
    """Relative errors of a layer's outputs, ‖y − ŷ‖ / ‖y − mean‖, the mean that of each output.

    y is what the dense network writes without the channels that leave, ŷ what the pruned one does.
    Where the layer makes up for what another branch lacks, y and ŷ are the sums of the two
    branches, behind the batch norm if there is one. Outputs that don't vary but by rounding are
    measured by their size, ‖y‖.

    Attributes:
        before: with the dense weights of what stays.
        after: with the weights that the layer has now.
    """

    before: float
    after: float

    @classmethod
    def of(cls, before: float, after: float, spread: float) -> Errors:
        """From sums of squares; errors of outputs that are zero throughout are zero."""
        return cls(*((square / spread) ** 0.5 if spread else 0.0 for square in (before, after)))


class Measure:
    """Measures the errors of each layer that a walk meets, all of its calls together.

    Args:
        walk: of the networks as they are handed back, over inputs that were held back.
        former: weights and biases that were changed, as they had been.
        new_biases: names of the layers that had no bias.

    Attributes:
        squares: layer → sums of squares per input: before, after, and of the outputs about their
            means; float64 (m, 3).
    """

    def __init__(self, walk: Walk, former: Former, new_biases: Collection[str]) -> None:
        self.walk = walk
        self.former = former
        self.new_biases = new_biases
        self.squares: dict[str, Tensor] = {}

    def __call__(self, layer: Layer) -> None:
        """Adds the calls at hand to the layer's squares."""
        self.add(layer.name, [self._squares(layer, call) for call in layer.calls])

    def add(self, name: str, squares: Sequence[Tensor]) -> None:
        """Takes squares of a layer, (m, 3) each."""
        held = [self.squares[name]] if name in self.squares else []
        self.squares[name] = torch.cat([*held, *squares])

    def errors(self) -> dict[str, Errors]:
        """Layer → its errors."""
        return {name: Errors.of(*one.sum(0).tolist()) for name, one in self.squares.items()}

    def _squares(self, layer: Layer, call: Call) -> Tensor:
        weight, bias = self.walk.tensor(layer.weight), self.walk.bias(layer, call)
        assert weight is not None
        now = weight, self.walk.tensor(bias)
        added = layer.name in self.new_biases
        once = (
            self.former.get(layer.weight, weight),
            None if added or bias is None or now[1] is None else self.former.get(bias, now[1]),
        )
        other = branch(self.walk, call)
        dense = call.dense if other is None else _sums(other, call)

        def left(number: int, weight: Tensor, bias: Tensor | None) -> Tensor:
            written = self.walk.written(call, number, weight, bias)
            if other is not None:
                written = _sum(other.pruned[number], written, other)
            return square(dense[number] - written)

        before, after = (
            torch.cat([left(i, *held) for i in range(len(dense))]) for held in (once, now)
        )
        return torch.stack([before, after, spread(call.geometry, dense)], 1)


def _sums(other: Branch, call: Call) -> Sequence[Tensor]:
    """The dense sum of both branches, but for the norm's constant."""
    return Mapped(lambda i: _sum(other.dense[i], call.dense[i], other), len(call.dense))


def _sum(value: Tensor, written: Tensor, other: Branch) -> Tensor:
    return value + written if other.scale is None else torch.addcmul(value, written, other.scale)


def square(values: Tensor) -> Tensor:
    """Sums of squares per input, float64 (m,)."""
    return _batched(values).double().square().flatten(1).sum(1)


def _batched(values: Tensor) -> Tensor:
    """The values; of a single vector, without a batch, as that of one input."""
    return values if values.ndim > 1 else values[None]


def spread(geometry: Geometry, targets: Sequence[Tensor]) -> Tensor:
    """Σ ‖y − mean‖² per input, mean over all inputs and places; float64 (m,).

    Σ ‖y‖² where outputs don't vary but by rounding, as those of a single input don't.
    """
    dim = -1 if geometry.linear else -1 - len(geometry.kernel)
    shape = [-1] + [1] * (-1 - dim)
    rows = [_batched(one).double().movedim(dim, 0).flatten(1) for one in targets]
    mean = torch.stack([one.sum(1) for one in rows]).sum(0) / sum(one.shape[1] for one in rows)
    spread = torch.cat([square(target - mean.view(shape)) for target in targets])
    size = torch.cat([square(target) for target in targets])
    rounding = (ROUNDINGS * torch.finfo(targets[0].dtype).eps) ** 2
    return torch.where(spread.sum() > rounding * size.sum(), spread, size)

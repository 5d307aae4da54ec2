"""Moves a few tensors of a network by Adam, on batches of chunks, and touches no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import cos, pi

import torch
from torch import Tensor

from bequest.execution.randomness import stream

BATCH = 32
"""Inputs of a step."""

NOTHING = 1e-2
"""What a tensor of zeros, such as a new bias, counts as."""

Loss = Callable[[Mapping[str, Tensor], int], Tensor]
"""What the tensors make of a chunk of that number."""


class Descent:
    """Steps of Adam, the first of them in proportion to the root mean square of each tensor.

    Args:
        start: name → tensor; copies are moved.
        loss: the mean over the chunks of a batch is lowered. Whatever else it depends on gets no
            gradients.
        rate: of the first step, relative to a tensor; it falls to 0 by a cosine.
        steps: how many there will be.

    Attributes:
        now: name → tensor as it is now.
    """

    def __init__(self, start: Mapping[str, Tensor], loss: Loss, rate: float, steps: int) -> None:
        self.now = {name: value.clone().requires_grad_() for name, value in start.items()}
        self._loss, self._steps, self._done = loss, steps, 0
        self._rates = [rate * _size(value) for value in start.values()]
        pairs = zip(self.now.values(), self._rates, strict=True)
        self._adam = torch.optim.Adam([{"params": [one], "lr": first} for one, first in pairs])

    def step(self, batch: Sequence[int]) -> None:
        """Lowers the loss of some chunks, of which one at a time is held."""
        for group, first in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = first * (1 + cos(pi * self._done / self._steps)) / 2
        moved = [*self.now.values()]
        slopes = [torch.zeros_like(value) for value in moved]
        for number in batch:  # views in the graph have the size of a chunk
            with torch.enable_grad():
                loss = self._loss(self.now, number) / len(batch)
            more = torch.autograd.grad(loss, moved, materialize_grads=True)
            torch._foreach_add_(slopes, more)
        for value, slope in zip(moved, slopes, strict=True):
            value.grad = slope
        self._adam.step()
        self._done += 1

    def found(self) -> dict[str, Tensor]:
        """Copies of the tensors as they are now."""
        return {name: value.detach().clone() for name, value in self.now.items()}


def batches(chunks: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """As many chunks of a size as make a batch, all of them in an order of its own each round."""
    generator = stream(seed)
    each = max(1, BATCH // size)
    while True:
        order = torch.randperm(len(chunks), generator=generator, device="cpu").tolist()
        for first in range(0, len(order), each):
            yield [chunks[i] for i in order[first : first + each]]


def _size(value: Tensor) -> float:
    """Root mean square of a tensor: what a step of Adam is relative to."""
    return float(value.square().mean().sqrt()) or NOTHING

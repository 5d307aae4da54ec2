"""Made-up inputs: each tensor by what it is; images are fitted to what a network knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from bequest.calibration import samples
from bequest.calibration.inputs.author import CannotWriteError
from bequest.calibration.inputs.base import Source, affordable, macs_of_one
from bequest.calibration.inputs.batching import Batching
from bequest.calibration.inputs.effort import effort_of
from bequest.calibration.inputs.images import Drawing, Range
from bequest.calibration.inputs.inverted import inverted
from bequest.calibration.inputs.leaves import dead_leaves
from bequest.calibration.inputs.noise import pink_noise, white_noise
from bequest.calibration.inputs.told import as_told
from bequest.calibration.inputs.written import Written
from bequest.calibration.samples import Samples
from bequest.config import later, register
from bequest.errors import UnknownNameError, UsageError
from bequest.execution.devices import device_of
from bequest.execution.precision import working_dtype
from bequest.execution.randomness import stream
from bequest.graph.inputs import normalise_inputs, tensors_of
from bequest.graph.trace import trace
from bequest.graph.vocabulary import vocabularies

DRAWINGS: dict[str, Drawing] = {"leaves": dead_leaves, "pink": pink_noise, "white": white_noise}
"""What real numbers are drawn from, by name."""

FEWEST_STEPS, MOST_STEPS = 3, 12
"""Steps of inversion where nobody says how many."""

EFFORT = 10**13
"""Multiply-accumulates up to which there are more than the fewest steps: minutes on a CPU."""

PASSES = 3
"""What a step takes, in forward passes: one, and backwards two."""


@register("inputs", "synthetic")
@dataclass(frozen=True)
class Synthetic(Source):
    """Inputs made of nothing: drawn images and numbers, random tokens, masks of ones.

    Attributes:
        images: number of inputs; None = 256, and up to 4,096 for networks so small that all of them
            together take no more than :data:`~bequest.calibration.inputs.base.BUDGET`
            multiply-accumulates.
        source: of real numbers: "leaves", "pink" or "white".
        value_range: lowest and highest value of real inputs, where known. None = the mean and
            deviation that the network's first batch norms tell
            (:mod:`bequest.calibration.inputs.told`), else zero mean and unit variance per channel.
        inversion: steps by which images are fitted to the statistics of the network's batch norms,
            or, where it has none, to its classes (:mod:`bequest.calibration.inputs.inverted`); each
            takes a forward and a backward pass. None = 12, and down to 3 where all of them together
            take more than :data:`EFFORT` multiply-accumulates.
        effort: "quick", "default" or "long": by how much there are fewer or more images and steps
            where nobody says how many (:mod:`bequest.calibration.inputs.effort`).
    """

    images: int | None = None
    source: str = "leaves"
    value_range: Range = None
    inversion: int | None = None
    effort: str = later("default")

    def __post_init__(self) -> None:
        effort_of(self.effort)
        for name, least in (("images", 1), ("inversion", 0)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"made-up inputs: expected {name} ≥ {least}, found {value!r}")
        if not isinstance(self.source, str) or self.source not in DRAWINGS:
            raise UnknownNameError("source", str(self.source), DRAWINGS)
        if self.value_range is not None and not _is_range(self.value_range):
            raise UsageError(
                f"made-up inputs: expected a range (low, high), low < high, found "
                f"{self.value_range!r}"
            )

    def within(self, value_range: Range) -> Source:
        """In this range where none is said."""
        return replace(self, value_range=value_range) if self.value_range is None else self

    def make_unasked(
        self, model: nn.Module, example_inputs: Any, seed: int, *, show: bool = False
    ) -> Samples:
        """A network that can write its tokens does so; of others' a note says how they came."""
        args = tensors_of(normalise_inputs(example_inputs))
        if any(one.is_floating_point() for one in args):
            return self.make(model, example_inputs, seed, show=show)
        shape = args[0].shape[-1:]
        own = Written() if self.images is None or not shape else Written(self.images, *shape)
        try:
            return own.make(model, example_inputs, seed, show=show)
        except CannotWriteError as error:
            made = self.make(model, example_inputs, seed, show=show)
            how = f"inputs: tokens are drawn uniformly, as {error.reason}"
            return replace(made, notes=(*made.notes, f"{how}; real ones (data=) do better"))

    def _make(self, model: nn.Module, example_inputs: Any, seed: int, show: bool) -> Samples:
        count, steps = self.images, self.inversion
        if count is None or steps is None:
            each = macs_of_one(model, example_inputs)
            effort = effort_of(self.effort)
            count = count or affordable(each, effort.images)
            if steps is None:
                bearable = int(effort.macs * EFFORT) // (PASSES * count * each)
                steps = min(int(effort.inversion * MOST_STEPS), max(FEWEST_STEPS, bearable))
        made = synthesise(model, example_inputs, count, self.source, self.value_range, seed)
        made = as_told(model, made, example_inputs, self.value_range)
        return inverted(model, made, example_inputs, steps, self.value_range, seed, show=show)


def _is_range(value: Any) -> bool:
    """Whether it is two finite numbers, the lower one first."""
    try:
        low, high = value
        return bool(-inf < low < high < inf)
    except (TypeError, ValueError, RuntimeError):  # not two, not numbers, tensors of several
        return False


def synthesise(
    model: nn.Module,
    example_inputs: Any,
    count: int,
    source: str,
    value_range: Range,
    seed: int,
) -> Samples:
    """Synthetic inputs shaped like the example.

    * Floating-point inputs, each, come from ``source``.
    * Integers that are looked up in a table of the network (:func:`vocabularies`), such as tokens,
      are drawn uniformly from its rows.
    * All other integers and booleans, such as attention masks, are ones.
    * Single numbers (tensors without dimensions) are those of the example.

    Args:
        model: the dense network, in at least single precision.
        example_inputs: the network's example inputs.
        count: how many inputs at least: what fills chunks of one size.
        source: a name in :data:`DRAWINGS`.
        value_range: lowest and highest value that real inputs take; None = unknown: zero mean and
            unit variance per channel.
        seed: of the draws.

    Raises:
        UsageError: an input can't be made up: there's no batch, its numbers are neither real nor
            integers, or it is a single number that is not finite.
    """
    examples = tensors_of(normalise_inputs(example_inputs))
    _refuse_others(examples)
    batching = Batching.of(example_inputs)
    rows: list[int | None] = [None] * len(examples)
    if not all(example.is_floating_point() for example in examples):
        rows = vocabularies(trace(model, example_inputs))
    generator = stream(seed)
    chunk = batching.samples_at_once(model, example_inputs, samples.chunk_of(count))
    chunks = -(-count // chunk)
    columns = []
    for position, (example, vocabulary) in enumerate(zip(examples, rows, strict=True)):
        each = len(example) if example.ndim and position in batching.whole else chunk
        if example.ndim:
            shape = (chunks * each, *example.shape[1:])
            values = _made_up(example, shape, vocabulary, source, value_range, generator)
            parts = torch.split(values, each)
        else:
            parts = (example.detach(),) * chunks
        place = device_of(model), working_dtype(example.dtype)
        columns.append([part.to(*place) for part in parts])
    return Samples(tuple(zip(*columns, strict=True)), real=False, whole=batching.whole)


def _made_up(
    example: Tensor,
    shape: tuple[int, ...],
    vocabulary: int | None,
    source: str,
    value_range: Range,
    generator: torch.Generator,
) -> Tensor:
    """Values of one input on the CPU, of the example's kind."""
    if vocabulary is not None:
        drawn = torch.randint(vocabulary, shape, generator=generator, device="cpu")
        return drawn.to(example.dtype)
    if not example.is_floating_point():
        return torch.ones(shape, dtype=example.dtype, device="cpu")
    draw = DRAWINGS[source] if len(shape) > 1 else white_noise
    return draw(shape[0], shape[1:], generator, value_range)


def _refuse_others(examples: list[Tensor]) -> None:
    """Raises UsageError where an input can't be made up."""
    batches = [e for e in examples if e.ndim > (1 if e.is_floating_point() else 0)]
    numbers = [e for e in examples if e.ndim == 0 and e.is_floating_point()]
    lost = any(e.is_complex() for e in examples) or any(not e.isfinite() for e in numbers)
    if lost or not batches:
        raise UsageError(
            "inputs can be made up for networks that take batches of real numbers, tokens or "
            "masks, with samples in dimension 0, beside single finite numbers; found inputs of "
            f"{[f'{tuple(one.shape)} {one.dtype}' for one in examples]}. Give real inputs "
            "with data=, or a weight-space restorer such as 'lbyl'"
        )

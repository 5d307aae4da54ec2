"""Inputs that are made up: each tensor by what it is; images are fitted to what a network knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bequest.calibration import samples
from bequest.calibration.inputs.batching import Batching
from bequest.calibration.inputs.inverted import invert
from bequest.calibration.inputs.synthetic import SOURCES, Range, white_noise
from bequest.calibration.samples import Samples
from bequest.errors import UsageError
from bequest.execution.devices import device_of
from bequest.execution.precision import working_dtype
from bequest.execution.randomness import stream
from bequest.graph.inputs import normalise_inputs, tensors_of, with_tensors
from bequest.graph.trace import trace
from bequest.graph.vocabulary import vocabularies


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
        source: a name in :data:`bequest.calibration.inputs.synthetic.SOURCES`.
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
    make = SOURCES[source] if len(shape) > 1 else white_noise
    return make(shape[0], shape[1:], generator, value_range)


def _refuse_others(examples: list[Tensor]) -> None:
    """Raises UsageError where an input can't be made up."""
    batches = [e for e in examples if e.ndim > (1 if e.is_floating_point() else 0)]
    numbers = [e for e in examples if e.ndim == 0 and e.is_floating_point()]
    lost = any(e.is_complex() for e in examples) or any(not e.isfinite() for e in numbers)
    if lost or not batches:
        raise UsageError(
            "regression makes inputs up for networks that take batches of real numbers, tokens or "
            "masks, with samples in dimension 0, beside single finite numbers; found inputs of "
            f"{[f'{tuple(one.shape)} {one.dtype}' for one in examples]}. Give real inputs "
            "with data=, or a weight-space restorer such as 'lbyl'"
        )


def inverted(
    model: nn.Module,
    made: Samples,
    example_inputs: Any,
    steps: int,
    value_range: Range,
    seed: int,
    *,
    show: bool = False,
) -> Samples:
    """The same images, fitted to what the model has learnt: see :func:`invert`.

    Networks that take anything else than one batch of images or sequences are left as they are.
    """
    columns = list(zip(*made.chunks, strict=True))
    if len(columns) != 1 or columns[0][0].ndim < 3 or not columns[0][0].is_floating_point():
        return made
    size = made.chunk_size
    fixed = Batching.of(example_inputs).size == size  # it may run with so many alone
    fitted = invert(
        model,
        torch.cat(columns[0]),
        steps,
        value_range,
        seed,
        call=lambda images: with_tensors(example_inputs, [images]),
        at_once=size if fixed else None,
        show=show,
    )
    return Samples(tuple((part,) for part in torch.split(fitted, size)), real=False)

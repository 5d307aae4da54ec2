"""What a walk feeds the networks: synthetic inputs, or the user's own, in chunks of equal size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from bequest.atomic import replacing
from bequest.errors import DataError, UsageError
from bequest.graph.trace import normalise_inputs, trace
from bequest.graph.vocabulary import vocabularies
from bequest.measure.execution import placed
from bequest.measure.precision import working_dtype
from bequest.statistics.inversion import invert
from bequest.statistics.synthetic import SOURCES

CHUNK = 64
"""Inputs that pass an operator at once."""


@dataclass(frozen=True)
class Samples:
    """Inputs of a network.

    Attributes:
        chunks: per chunk the network's input tensors in order; all chunks have equal sizes.
        real: True for the user's own inputs, False for synthetic ones.
    """

    chunks: tuple[tuple[Tensor, ...], ...]
    real: bool

    @property
    def count(self) -> int:
        """Number of inputs."""
        return len(self.chunks) * len(self.chunks[0][0])

    @property
    def tokens_alone(self) -> bool:
        """Whether they are made up and hold no real numbers: tokens without sense."""
        return not self.real and not any(part.is_floating_point() for part in self.chunks[0])

    def save(self, path: str | Path) -> None:
        """Writes the inputs to a safetensors file, to be reused as ``data=``.

        Raises:
            DataError: the file can't be written.
        """
        columns = {
            str(number): torch.cat(column)
            for number, column in enumerate(zip(*self.chunks, strict=True))
        }
        facts = {"chunk": str(len(self.chunks[0][0])), "real": str(self.real)}
        try:
            with replacing(Path(path)) as partial:
                partial.write_bytes(to_bytes(columns, metadata=facts))
        except OSError as error:
            raise DataError(f"{path}: the inputs could not be written: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Samples:
        """Reads what :meth:`save` wrote.

        Raises:
            DataError: there is no such file, or it is none of these.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata() or {}
                columns = [file.get_tensor(str(i)) for i in range(len(file.keys()))]
            chunk, real = int(facts["chunk"]), {"True": True, "False": False}[facts["real"]]
            parts = [torch.split(column, chunk) for column in columns]
            samples = cls(tuple(zip(*parts, strict=True)), real)
            if chunk < 1 or not parts or any(len(part) % chunk for part in columns):
                raise ValueError("chunks of unequal sizes")
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{path}: expected inputs that Samples.save wrote, found something else: {error}"
            ) from error
        return samples

    def shaped_like(self, example_inputs: Any) -> Any:
        """The first chunk in the place and type of the example's tensors: a tuple, or a dict."""
        args, kwargs = normalise_inputs(example_inputs)
        tensors = iter(self.chunks[0])

        def swap(value: Any) -> Any:
            return next(tensors).to(value.dtype) if isinstance(value, Tensor) else value

        if kwargs:
            return {name: swap(value) for name, value in kwargs.items()}
        return tuple(swap(value) for value in args)

    def placed_like(self, example_inputs: Any) -> Samples:
        """All of them, on the devices of the example's tensors.

        Raises:
            UsageError: they are inputs of another network: their shapes are not the example's.
        """
        examples = _tensors_of(example_inputs)
        shapes = [tuple(part.shape[1:]) for part in self.chunks[0]]
        wanted = [tuple(example.shape[1:]) for example in examples]
        if shapes != wanted:
            raise UsageError(f"data: expected inputs of the shapes {wanted}, found {shapes}")
        chunks = tuple(
            tuple(part.to(one.device) for part, one in zip(chunk, examples, strict=True))
            for chunk in self.chunks
        )
        return Samples(chunks, self.real)


def synthesise(
    model: nn.Module,
    example_inputs: Any,
    count: int,
    source: str,
    value_range: tuple[float, float] | None,
    seed: int,
) -> Samples:
    """Synthetic inputs shaped like the example, whose first dimension is the batch.

    * Floating-point inputs, each, come from ``source``.
    * Integers that are looked up in a table of the network (:func:`vocabularies`), such as tokens,
      are drawn uniformly from its rows.
    * All other integers and booleans, such as attention masks, are ones.

    Args:
        model: the dense network, in at least single precision.
        example_inputs: the network's example inputs.
        count: how many inputs.
        source: a name in :data:`bequest.statistics.synthetic.SOURCES`.
        value_range: lowest and highest value that real inputs take; None = unknown: zero mean and
            unit variance per channel.
        seed: of the draws.

    Raises:
        UsageError: an input can't be made up: it has no batch dimension of the others' size, or its
            numbers are neither real nor integers.
    """
    examples = _tensors_of(example_inputs)
    _check_batch(examples)
    rows: list[int | None] = [None] * len(examples)
    if not all(example.is_floating_point() for example in examples):
        args, kwargs = normalise_inputs(example_inputs)
        rows = vocabularies(trace(model, placed(kwargs or args, model)))
    generator = torch.Generator().manual_seed(seed)
    chunk = min(CHUNK, count)
    total = -(-count // chunk) * chunk
    columns = []
    for example, vocabulary in zip(examples, rows, strict=True):
        shape = tuple(example.shape[1:])
        if example.is_floating_point():
            values = SOURCES[source](total, shape, generator, value_range)
            values = values.to(working_dtype(example.dtype))
        elif vocabulary is not None:
            values = torch.randint(vocabulary, (total, *shape), generator=generator)
            values = values.to(example.dtype)
        else:
            values = torch.ones(total, *shape, dtype=example.dtype)
        columns.append(torch.split(values.to(example.device), chunk))
    return Samples(tuple(zip(*columns, strict=True)), real=False)


def _check_batch(examples: list[Tensor]) -> None:
    sizes = {example.shape[0] if example.ndim else None for example in examples}
    for example in examples:
        least = 2 if example.is_floating_point() else 1
        if example.is_complex() or example.ndim < least or len(sizes) > 1:
            raise UsageError(
                "regression makes inputs up for networks that take batches of real numbers, "
                "tokens or masks, all of one batch size in dimension 0; found inputs of "
                f"{[f'{tuple(one.shape)} {one.dtype}' for one in examples]}. Give real inputs "
                "with data=, or a weight-space restorer such as 'lbyl'"
            )


def inverted(
    model: nn.Module,
    samples: Samples,
    steps: int,
    value_range: tuple[float, float] | None,
    seed: int,
    *,
    show: bool = False,
) -> Samples:
    """The same images, fitted to what the model has learnt: see :func:`invert`.

    Networks that take anything else than one batch of images or sequences are left as they are.
    """
    columns = list(zip(*samples.chunks, strict=True))
    if len(columns) != 1 or columns[0][0].ndim < 3 or not columns[0][0].is_floating_point():
        return samples
    fitted = invert(model, torch.cat(columns[0]), steps, value_range, seed, show=show)
    chunk = len(columns[0][0])
    return Samples(tuple((part,) for part in torch.split(fitted, chunk)), real=False)


def collect(data: Iterable[Any], example_inputs: Any, most: int) -> Samples:
    """The first ``most`` inputs of an iterable of batches, rechunked.

    Args:
        data: batches as loaders give them: a tensor, or a tuple or list whose first item is one
            (labels behind it are not read), or a mapping of tensors.
        example_inputs: the network's example inputs, whose number of tensors decides.
        most: how many inputs at most.

    Raises:
        UsageError: there is no data, or its shape is not that of the example inputs.
    """
    examples = _tensors_of(example_inputs)
    _, kwargs = normalise_inputs(example_inputs)
    gathered: list[list[Tensor]] = [[] for _ in examples]
    found = 0
    for batch in data:
        for held, value in zip(gathered, _tensors(batch, kwargs, len(examples)), strict=True):
            held.append(value)
        found = sum(len(value) for value in gathered[0])
        if found >= most:
            break
    if not found:
        raise UsageError("data: expected batches of inputs, found none")
    chunk = min(CHUNK, found)
    usable = min(most, found) // chunk * chunk
    columns = []
    for values, example in zip(gathered, examples, strict=True):
        whole = torch.cat(values)[:usable]
        if whole.shape[1:] != example.shape[1:]:
            raise UsageError(
                f"data: expected inputs of shape {tuple(example.shape[1:])} as in example_inputs, "
                f"found {tuple(whole.shape[1:])}"
            )
        if whole.is_floating_point() and not bool(whole.isfinite().all()):
            raise UsageError("data: expected finite inputs, found NaN or infinite values")
        columns.append(torch.split(whole.to(example.device, working_dtype(example.dtype)), chunk))
    return Samples(tuple(zip(*columns, strict=True)), real=True)


def _tensors_of(example_inputs: Any) -> list[Tensor]:
    args, kwargs = normalise_inputs(example_inputs)
    return [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]


def _tensors(batch: Any, kwargs: Mapping[str, Any], count: int) -> list[Tensor]:
    if isinstance(batch, Tensor):
        found = [batch]
    elif isinstance(batch, Mapping):
        found = [batch[name] for name, value in kwargs.items() if isinstance(value, Tensor)]
    else:
        found = [value for value in batch if isinstance(value, Tensor)][:count]
    if len(found) != count:
        raise UsageError(f"data: expected batches of {count} input tensors, found {len(found)}")
    return found

"""What a walk feeds the networks: inputs in chunks of equal size, made up or the user's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from bequest.atomic import replacing
from bequest.errors import DataError, UsageError
from bequest.execution.precision import working_dtype
from bequest.graph.inputs import normalise_inputs, tensors_of, with_tensors

CHUNK = 64
"""Inputs that pass an operator at once, at most."""

PARTS = 10
"""Chunks that there are at least, as far as there are inputs: some are held back to measure on."""


@dataclass(frozen=True)
class Samples:
    """Inputs of a network.

    Attributes:
        chunks: per chunk the network's input tensors in order; all chunks have equal sizes.
        real: True for the user's own inputs, False for synthetic ones.
        whole: positions of the tensors that have no row per input, such as a single number or a
            table; each chunk holds all of it.
        repeated: how many inputs are in it twice, to fill the last chunk.
        notes: what should be reported of them.
        written: tokens that the network has written itself: made up, but not without sense.
    """

    chunks: tuple[tuple[Tensor, ...], ...]
    real: bool
    whole: frozenset[int] = frozenset()
    repeated: int = 0
    notes: tuple[str, ...] = ()
    written: bool = False

    @property
    def chunk_size(self) -> int:
        """Number of inputs of each chunk."""
        return len(next(part for i, part in enumerate(self.chunks[0]) if i not in self.whole))

    @property
    def count(self) -> int:
        """Number of inputs, each counted once."""
        return len(self.chunks) * self.chunk_size - self.repeated

    @property
    def tokens_alone(self) -> bool:
        """Whether they are made up and hold no real numbers: tokens without sense."""
        known = self.real or self.written
        return not known and not any(part.is_floating_point() for part in self.chunks[0])

    def images(self) -> Tensor | None:
        """All of them where they are images or sequences alone, (N, C, *space); else None."""
        columns = list(zip(*self.chunks, strict=True))
        if len(columns) != 1 or columns[0][0].ndim < 3 or not columns[0][0].is_floating_point():
            return None
        return torch.cat(columns[0])

    def with_images(self, images: Tensor, *notes: str) -> Samples:
        """The same number of images in place of those that :meth:`images` gives, and more notes."""
        chunks = tuple((part,) for part in torch.split(images, self.chunk_size))
        return replace(self, chunks=chunks, notes=(*self.notes, *notes))

    def to_json(self) -> dict[str, Any]:
        """What a plan says of them."""
        return {"real": self.real, "count": self.count, "notes": list(self.notes)}

    def save(self, path: str | Path) -> None:
        """Writes the inputs to a safetensors file, to be reused as ``data=``.

        Raises:
            DataError: the file can't be written.
        """
        columns = {
            str(i): torch.stack(column) if i in self.whole else torch.cat(column)
            for i, column in enumerate(zip(*self.chunks, strict=True))
        }
        facts = {
            "chunk": str(self.chunk_size),
            "real": str(self.real),
            "whole": json.dumps(sorted(self.whole)),
            "repeated": str(self.repeated),
            "notes": json.dumps(self.notes),
            "written": str(self.written),
        }
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
            whole = frozenset(json.loads(facts["whole"]))
            if chunk < 1 or not whole.issubset(range(len(columns))) or len(whole) == len(columns):
                raise ValueError("no chunks of inputs")
            parts: list[Sequence[Tensor]] = [
                column.unbind() if i in whole else torch.split(column, chunk)
                for i, column in enumerate(columns)
            ]
            if any(len(c) % chunk for i, c in enumerate(columns) if i not in whole):
                raise ValueError("chunks of unequal sizes")
            chunks = tuple(zip(*parts, strict=True))
            notes = tuple(map(str, json.loads(facts["notes"])))
            written = facts.get("written") == "True"
            return cls(chunks, real, whole, int(facts["repeated"]), notes, written)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DataError(
                f"{path}: expected inputs that Samples.save wrote, found something else: {error}"
            ) from error

    def shaped_like(self, example_inputs: Any, number: int = 0) -> Any:
        """A chunk in the place and type of the example's tensors: a tuple, or a dict."""
        examples = tensors_of(normalise_inputs(example_inputs))
        pairs = zip(self.chunks[number], examples, strict=True)
        return with_tensors(example_inputs, [part.to(one.dtype) for part, one in pairs])

    def placed_like(self, example_inputs: Any, device: torch.device) -> Samples:
        """All of them on a device, in the types that the example's tensors are worked with.

        Raises:
            UsageError: they are inputs of another network: their shapes or kinds of numbers are
                not the example's.
        """
        examples = tensors_of(normalise_inputs(example_inputs))
        shapes = [self._shape_of_one(i, part) for i, part in enumerate(self.chunks[0])]
        wanted = [self._shape_of_one(i, one) for i, one in enumerate(examples)]
        if shapes != wanted:
            raise UsageError(f"data: expected inputs of the shapes {wanted}, found {shapes}")
        for part, one in zip(self.chunks[0], examples, strict=True):
            if kind_of(part.dtype) != kind_of(one.dtype):
                raise UsageError(f"data: expected {one.dtype} inputs, found {part.dtype}")
        chunks = tuple(
            tuple(
                part.to(device, working_dtype(one.dtype))
                for part, one in zip(chunk, examples, strict=True)
            )
            for chunk in self.chunks
        )
        return replace(self, chunks=chunks)

    def _shape_of_one(self, position: int, tensor: Tensor) -> tuple[int, ...]:
        """Of a single input; of all there is where a chunk holds it whole."""
        return tuple(tensor.shape if position in self.whole else tensor.shape[1:])


def kind_of(dtype: torch.dtype) -> str:
    """What numbers a type holds, in words: those of one kind may stand for each other."""
    if dtype.is_complex:
        return "complex"
    return "real numbers" if dtype.is_floating_point else "whole numbers"


def chunk_of(count: int) -> int:
    """How many of so many inputs pass at once: a power of two, for its many multiples."""
    doublings = max(0, (count // PARTS).bit_length() - 1)
    return min(CHUNK, 1 << doublings)


def dividing(count: int) -> int:
    """The size of chunks that hold so many inputs without rest, or with the least.

    Sizes from a half of :func:`chunk_of` to twice that are looked at, the nearest to it first;
    larger ones cost memory and are the last choice.
    """
    most = chunk_of(count)
    sizes: list[int] = [*range(most, max(1, most // 2) - 1, -1), *range(most + 1, 2 * most + 1)]
    return min(sizes, key=lambda size: -count % size)

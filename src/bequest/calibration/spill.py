"""Values of a walk, chunk by chunk: in memory up to a limit, beyond it in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bequest.errors import BequestError
from bequest.execution.memory import free_memory

LIMIT = 2 * 2**30
"""Bytes of values that a walk holds in main memory, where half as much is free or nobody says."""

SHARE = 8
"""A walk holds one part in so many of the main memory that is free where that is more: it doesn't
live alone there, and files that are read again soon are hardly slower."""

LOOKS = 64
"""How often it is looked at what is free, while as much is put away as the limit allows: asking the
system takes as long as a small layer."""

T = TypeVar("T")


class Spilled:
    """A tensor in a file: raw bytes; its type, shape and strides stay in memory."""

    def __init__(self, tensor: Tensor, path: Path) -> None:
        self.path = path
        self.size, self.stride = tensor.size(), tensor.stride()
        self.dtype, self.device = tensor.dtype, tensor.device
        self.span = _span(tensor)
        try:
            _bytes(tensor.as_strided((self.span,), (1,)).cpu()).tofile(path)
        except OSError as error:
            raise BequestError(
                f"can't write {self.span * tensor.itemsize:,} bytes of activations to "
                f"{path.parent}: {error}. Set TMPDIR to a folder with more room, or give fewer "
                "images"
            ) from error

    def read(self) -> Tensor:
        """The tensor as it was, strides included, so that kernels repeat every bit."""
        flat = torch.empty(self.span, dtype=self.dtype, device="cpu")
        with self.path.open("rb") as file:
            found = file.readinto(_bytes(flat))
        if found != flat.nbytes:
            raise BequestError(f"{self.path}: expected {flat.nbytes:,} bytes, found {found:,}")
        return flat.to(self.device).as_strided(self.size, self.stride)


class Chunks(Sequence[Any]):
    """A value by chunk: tensors, or lists of tensors; those in files are read when asked for."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return _each(self.items[index], lambda one: one.read() if isinstance(one, Spilled) else one)


class Mapped(Sequence[T], Generic[T]):
    """``function`` of 0, 1, ..., computed whenever an item is asked for, never held."""

    def __init__(self, function: Callable[[int], T], length: int) -> None:
        self._function, self._length = function, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._function(index)


def limit_on(device: torch.device) -> int:
    """Bytes of values that a walk holds on a device, never more than half of what is free there."""
    if device.type != "cuda":
        free = free_memory()
        return LIMIT if free is None else min(free // 2, max(LIMIT, free // SHARE))
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + cached) // 2


class Store:
    """Keeps values until they are dropped; a context whose folder is gone when it is left.

    Args:
        limit: bytes held in memory; views count like what they show. Nor are there more of them
            when less than half as many bytes of main memory are free: others want some, too.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._unlooked, self._scarce = 0, False
        self._stack = ExitStack()
        self._names = iter(range(2**62))
        self._folder: Path | None = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def keep(self, values: Iterable[Any]) -> Chunks:
        """Takes the values of the chunks as they are computed."""
        chunks = Chunks()
        for value in values:
            chunks.items.append(_each(value, self._put))
        return chunks

    def drop(self, chunks: Sequence[Any]) -> None:
        """Forgets what :meth:`keep` took; twice is once. Other sequences are not the store's."""
        if isinstance(chunks, Chunks):
            for one in _flat(chunks.items):
                if isinstance(one, Spilled):
                    one.path.unlink()
                elif isinstance(one, Tensor):
                    self.held -= _span(one) * one.itemsize
            chunks.items.clear()

    def _put(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        size = _span(value) * value.itemsize
        if self.held + size > self.limit or self._is_scarce(size, value.device):
            return Spilled(value.resolve_conj().resolve_neg(), self._path())
        self.held += size
        return value

    def _is_scarce(self, size: int, device: torch.device) -> bool:
        """Whether others have taken so much main memory that the limit is out of reach."""
        self._unlooked += size
        if device.type == "cpu" and self._unlooked >= self.limit // LOOKS:
            free, self._unlooked = free_memory(), 0
            self._scarce = free is not None and free < self.limit // 2
        return self._scarce

    def _path(self) -> Path:
        if self._folder is None:
            directory = TemporaryDirectory(prefix="bequest-")
            self._folder = Path(self._stack.enter_context(directory))
        return self._folder / str(next(self._names))


def _span(tensor: Tensor) -> int:
    """Number of elements in memory from a tensor's first to its last."""
    if tensor.numel() == 0:
        return 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in steps)


def _bytes(flat: Tensor) -> Any:
    return flat.view(torch.uint8).numpy()


def _each(value: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` of a value, or of each member of a list of values."""
    if isinstance(value, list | tuple):
        return [_each(one, function) for one in value]
    return function(value)


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value

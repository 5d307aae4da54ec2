"""Batches of normalised images, decoded ahead of the network that reads them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from bequest.data.preprocessing import Preprocessing
from bequest.data.source import Source
from bequest.errors import UsageError


class ImageLoader:
    """An iterable over (x, y): float32 (B, C, H, W), normalised, and int64 (B,) labels.

    Threads decode the next ``workers`` batches while the caller works on the last one (Pillow and
    NumPy release the interpreter lock), and at most ``workers + 1`` batches are in memory. The
    order is that of the source, always the same; the loader can be iterated any number of times.

    ``len(loader)`` is the number of batches, ``len(loader.dataset)`` the number of images in the
    source, ``loader.count`` the number that this loader gives.

    Attributes:
        dataset: the source.
        preprocessing: what is done to every image.
        batch_size: images per batch; the last one may be smaller.
        workers: threads.
        start: index of the first image.
        stop: index after the last image.
    """

    def __init__(
        self,
        dataset: Source,
        preprocessing: Preprocessing,
        *,
        batch_size: int = 256,
        workers: int = 2,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("workers", workers)):
            if value < 1:
                raise UsageError(f"{name}: expected at least 1, found {value}")
        stop = len(dataset) if stop is None else min(stop, len(dataset))
        if not 0 <= start < stop:
            raise UsageError(
                f"images {start} to {stop}: expected a range within the {len(dataset)} images"
            )
        self.dataset = dataset
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.workers = workers
        self.start = start
        self.stop = stop

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes' names in the order of the labels, where the format has names."""
        return self.dataset.classes

    @property
    def count(self) -> int:
        """Number of images that one iteration gives."""
        return self.stop - self.start

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        firsts = range(0, self.count, self.batch_size)
        return self.batches(range(i, min(i + self.batch_size, self.count)) for i in firsts)

    def batches(self, indices: Iterable[Iterable[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in an order of the caller's choice, decoded ahead like the loader's own.

        Args:
            indices: for each batch the numbers of its images, 0 to ``count`` - 1.
        """
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="bequest-decode")
        pending: deque[Future[tuple[Tensor, Tensor]]] = deque()
        try:
            for batch in indices:
                pending.append(pool.submit(self._batch, batch))
                if len(pending) > self.workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def subset(self, start: int, stop: int) -> ImageLoader:
        """A loader over images ``start`` to ``stop`` (exclusive) of this one.

        Raises:
            UsageError: the range is empty or begins past the end.
        """
        if start < 0 or stop < start:
            raise UsageError(f"subset: expected 0 <= start < stop, found {start} and {stop}")
        return ImageLoader(
            self.dataset,
            self.preprocessing,
            batch_size=self.batch_size,
            workers=self.workers,
            start=self.start + start,
            stop=min(self.start + stop, self.stop),
        )

    def _batch(self, indices: Iterable[int]) -> tuple[Tensor, Tensor]:
        items = [self.dataset[self.start + int(index)] for index in indices]
        pixels = np.stack([self.preprocessing.fit(image) for image, _ in items])
        return self.preprocessing.normalise(pixels), torch.tensor(
            [label for _, label in items], device="cpu"
        )

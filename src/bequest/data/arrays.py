"""Labelled images that lie in memory as one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bequest.data.source import checked_labels
from bequest.errors import DataError


class ImageArrays:
    """Images uint8 (N, H, W) or (N, H, W, 1 or 3) with labels (N,).

    Args:
        images: the pixels.
        labels: integers from 0.
        where: the file, for messages.

    Raises:
        DataError: another dtype or shape, no images, labels that don't fit.
    """

    classes: tuple[str, ...] | None = None

    def __init__(self, images: NDArray[np.generic], labels: ArrayLike, where: str) -> None:
        if images.ndim == 3:
            images = images[..., None]
        shaped = images.ndim == 4 and images.shape[3] in (1, 3) and 0 not in images.shape[1:]
        if images.dtype != np.uint8 or not shaped:
            raise DataError(
                f"{where}: images: expected uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), "
                f"found {images.dtype} {images.shape}"
            )
        self._labels = checked_labels(labels, len(images), where)
        self._images = images.astype(np.uint8, copy=False)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return self._images[index], int(self._labels[index])

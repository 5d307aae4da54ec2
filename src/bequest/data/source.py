"""What every image format offers: labelled images by index."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from bequest.errors import DataError


class Source(Protocol):
    """Labelled images in a fixed order; reading one index is safe from several threads.

    Attributes:
        classes: the classes' names in the order of the labels, where the format has names.
    """

    classes: tuple[str, ...] | None

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> tuple[Image.Image | NDArray[np.uint8], int]:
        """The image, decoded or as uint8 (h, w, 1 or 3), and its label."""


def checked_labels(labels: ArrayLike, count: int, where: str) -> NDArray[np.int64]:
    """Labels as int64 (count,).

    Args:
        labels: what the file holds.
        count: number of images.
        where: the file, for messages.

    Raises:
        DataError: not one non-negative integer per image.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels: expected one integer per image, found {array.dtype} "
            f"of shape {array.shape}"
        )
    if len(array) != count:
        raise DataError(
            f"{where}: expected as many labels as images, found {len(array)} labels "
            f"and {count} images"
        )
    if count == 0:
        raise DataError(f"{where} holds no images")
    if array.min() < 0:
        raise DataError(f"{where}: labels: expected 0, 1, 2, ..., found {array.min()}")
    return array.astype(np.int64)

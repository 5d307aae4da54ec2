"""Opens labelled images, whichever of the known formats they are in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bequest.data.folder import ImageFolder
from bequest.data.idx import find_idx, is_images, is_labels, open_idx
from bequest.data.loader import ImageLoader
from bequest.data.npz import open_npz
from bequest.data.parquet import ParquetImages
from bequest.data.preprocessing import Preprocessing
from bequest.data.source import Source
from bequest.errors import DataError, UsageError


def open_images(
    path: str | Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: tuple[int, int, int],
    crop: float = 1.0,
    interpolation: str = "bilinear",
    batch_size: int = 256,
    limit: int | None = None,
    offset: int = 0,
    workers: int = 2,
) -> ImageLoader:
    """A loader over the labelled images at ``path``.

    Args:
        path: one of

            * a folder with a folder per class (``class/image.jpg``); labels count the sorted
              names, and the order takes one image of each class in turn;
            * an ``.npz`` with x, uint8 (N, H, W) or (N, H, W, C), and y, integers (N,);
            * IDX: the images file (``t10k-images-idx3-ubyte.gz``, gzipped or not) with its labels
              file beside it, or a folder that holds one such pair;
            * a ``.parquet`` file with the columns image (encoded bytes) and label.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        size: (C, H, W) of the network's input. Images of another size are resized and cropped,
            grey and colour are converted into each other: see :class:`Preprocessing`.
        crop: share of the resized image that the centre crop keeps.
        interpolation: how images are resized, "bilinear", "bicubic", ...
        batch_size: images per batch.
        limit: give at most so many images.
        offset: leave out so many images at the beginning.
        workers: threads that decode ahead.

    Raises:
        UsageError: nothing at ``path``, an unknown format, or a value out of range.
        DataError: the data can't be read; see the format.
        MissingExtraError: parquet without pyarrow.
    """
    preprocessing = Preprocessing(tuple(mean), tuple(std), size, crop, interpolation)
    if offset < 0 or (limit is not None and limit < 1):
        raise UsageError(
            f"expected offset >= 0 and limit >= 1, found offset {offset} and limit {limit}"
        )
    return ImageLoader(
        _open(Path(path)),
        preprocessing,
        batch_size=batch_size,
        workers=workers,
        start=offset,
        stop=None if limit is None else offset + limit,
    )


def _open(path: Path) -> Source:
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UsageError(f"data: expected a file or folder, found nothing at {path}")
    if path.suffix.lower() == ".npz":
        return open_npz(path)
    if path.suffix.lower() == ".parquet":
        return ParquetImages(path)
    if is_images(path):
        return open_idx(path)
    if is_labels(path):
        raise UsageError(f"data: {path.name} holds labels; name the images file beside it")
    raise UsageError(
        "data: expected a folder per class, an .npz, a .parquet or an IDX file "
        f"(*-images-idx3-ubyte, .gz or not), found {path.name}"
    )


def _open_folder(path: Path) -> Source:
    if not any(path.iterdir()):
        raise DataError(f"{path}: expected images, found an empty folder")
    images = find_idx(path)
    return ImageFolder(path) if images is None else open_idx(images)

"""IDX files, the format of MNIST: a header of big-endian sizes, then the bytes.

Source: LeCun, Cortes, Burges, "The MNIST database", section "File formats".
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bequest.data.arrays import ImageArrays
from bequest.errors import DataError, UsageError

_UNSIGNED_BYTE = 0x08
_DEFLATE_LIMIT = 1032  # no deflate stream expands further


def is_images(path: Path) -> bool:
    """True for ``*-images-idx3-ubyte``, ``*-images.idx3-ubyte``, with or without ``.gz``."""
    return path.is_file() and "images" in path.name and "idx3-ubyte" in path.name


def is_labels(path: Path) -> bool:
    """True for the name of a labels file."""
    return "labels" in path.name and "idx1-ubyte" in path.name


def open_idx(path: Path) -> ImageArrays:
    """Reads an images file and the labels file beside it, each gzipped or not.

    Args:
        path: the images file, e.g. ``t10k-images-idx3-ubyte.gz``; the labels are then in
            ``t10k-labels-idx1-ubyte.gz`` or ``t10k-labels-idx1-ubyte``.

    Raises:
        DataError: no labels file, damaged files, sizes that don't fit the files.
    """
    images = _read(path, dimensions=3)
    labels_path = _labels_beside(path)
    labels = _read(labels_path, dimensions=1)
    return ImageArrays(images, labels, f"{path} with {labels_path.name}")


def find_idx(folder: Path) -> Path | None:
    """The images file in a folder that holds an IDX pair; None where there is none.

    Raises:
        UsageError: there are several, and the caller must say which.
    """
    found = sorted(path for path in folder.iterdir() if is_images(path))
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise UsageError(f"{folder} holds several sets of images: {listed}. Name one of the files.")
    return found[0] if found else None


def _labels_beside(images: Path) -> Path:
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    for candidate in (images.with_name(plain), images.with_name(plain + ".gz")):
        if candidate.is_file():
            return candidate
    raise DataError(f"{images}: expected the labels beside it as {plain} or {plain}.gz, found none")


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of one file; the declared size is checked before anything of it is allocated."""
    length = path.stat().st_size
    header_length = 4 + 4 * dimensions
    try:
        with path.open("rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as stream:
            shape = _shape(stream.read(header_length), dimensions, path)
            size = math.prod(shape)
            most = length * _DEFLATE_LIMIT if zipped else length - header_length
            if size > most:
                raise DataError(f"{path} declares {shape}, {size} bytes, more than it can hold")
            data = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged: {error}") from error
    if len(data) != size:
        found = "more" if len(data) > size else f"{len(data)}"
        raise DataError(f"{path} declares {shape}, {size} bytes, but holds {found}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _shape(header: bytes, dimensions: int, path: Path) -> tuple[int, ...]:
    """The sizes in a header: 0, 0, element type, number of dimensions, then each size."""
    expected = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if len(header) != 4 + 4 * dimensions or header[:4] != expected:
        raise DataError(
            f"{path}: expected an IDX header {expected.hex()} (unsigned bytes, {dimensions} "
            f"dimensions) and its sizes, found {header.hex() or 'nothing'}"
        )
    return struct.unpack(f">{dimensions}I", header[4:])

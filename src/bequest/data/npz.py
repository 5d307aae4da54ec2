"""NumPy archives with the images as ``x`` and the labels as ``y``."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from bequest.data.arrays import ImageArrays
from bequest.errors import DataError


def open_npz(path: Path) -> ImageArrays:
    """Reads an archive of x, uint8 (N, H, W) or (N, H, W, C), and y, integers (N,).

    The pixels are held in memory as they are, one byte each.

    Raises:
        DataError: a damaged archive, other keys, arrays of Python objects, other dtypes or shapes.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: expected an archive of x and y, found a single array")
        with loaded as archive:
            missing = {"x", "y"} - set(archive.files)
            if missing:
                raise DataError(f"{path}: expected the keys x and y, found {archive.files}")
            images, labels = archive["x"], archive["y"]
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz archive: {error}") from error
    except MemoryError as error:
        raise DataError(f"{path} declares arrays larger than the memory: {error}") from error
    return ImageArrays(images, labels, str(path))

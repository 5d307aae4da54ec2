"""Parquet files with the columns ``image`` and ``label``, as on the Hugging Face hub."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bequest.data.decode import decode
from bequest.data.source import checked_labels
from bequest.errors import DataError, MissingExtraError


class ParquetImages:
    """Encoded images in the column ``image`` (bytes, or a struct {bytes, path}), integer labels.

    Labels are read at once; of the encoded images a few row groups are held at a time.

    Args:
        path: the file.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: a damaged file, other columns or column types, labels that don't fit.
    """

    classes: tuple[str, ...] | None = None

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtraError("pyarrow", "parquet", "reading parquet files") from error
        self._path = path
        self._errors = (pyarrow.ArrowException, OSError)
        self._lock = threading.Lock()  # one open file can't be read from two threads
        self._row_group = lru_cache(maxsize=4)(self._read_row_group)
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
            missing = {"image", "label"} - set(self._file.schema_arrow.names)
            if missing:
                raise DataError(
                    f"{path}: expected the columns image and label, "
                    f"found {self._file.schema_arrow.names}"
                )
            labels = self._file.read(columns=["label"])["label"]
        except self._errors as error:
            raise DataError(f"{path} is not a readable parquet file: {error}") from error
        if labels.null_count:
            raise DataError(
                f"{path}: expected a label for every image, found {labels.null_count} nulls"
            )
        metadata = self._file.metadata
        self._labels = checked_labels(labels.to_numpy(), metadata.num_rows, str(path))
        sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        with self._lock:
            images = self._row_group(group)
        value = images[index - int(self._starts[group])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        name = f"{self._path}, row {index}"
        if not isinstance(data, bytes):
            raise DataError(
                f"{name}: expected the bytes of an image, found {type(data).__name__}; "
                "images that lie in other files are not followed"
            )
        return decode(data, name), int(self._labels[index])

    def _read_row_group(self, group: int) -> Any:
        try:
            return self._file.read_row_group(group, columns=["image"])["image"]
        except self._errors as error:
            raise DataError(f"{self._path}, row group {group}: damaged: {error}") from error

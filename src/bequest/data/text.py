"""Texts: any file of UTF-8, or the column ``text`` of a parquet file."""

from __future__ import annotations

from pathlib import Path

from bequest.errors import DataError, MissingExtraError, UsageError


def read_texts(path: str | Path) -> list[str]:
    """The texts in a file: one of a text file, one a row of a parquet file.

    Args:
        path: a ``.parquet`` file with a column ``text``, or any other file of UTF-8.

    Raises:
        UsageError: there is no file at ``path``.
        DataError: it can't be read, is empty, or has no such column.
        MissingExtraError: parquet without pyarrow.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise UsageError(f"text: expected a file, found {found} at {path}")
    texts = _column(path) if path.suffix.lower() == ".parquet" else [_whole(path)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError(f"{path}: expected a text, found none")
    return texts


def _whole(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected a text in UTF-8, found other bytes: {error}") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error}") from error


def _column(path: Path) -> list[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "reading parquet files") from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        if "text" not in file.schema_arrow.names:
            raise DataError(f"{path}: expected a column text, found {file.schema_arrow.names}")
        values = file.read(columns=["text"])["text"].to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: {error}") from error
    if not all(isinstance(value, str) for value in values if value is not None):
        raise DataError(f"{path}: expected strings in the column text, found other values")
    return [value for value in values if value is not None]

"""Files that appear as a whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, with the suffix of ``path``, which it replaces when the block ends well.

    It lies in the same folder. When the block fails, or the replacement does, ``path`` is what it
    was and nothing lies beside it.

    Raises:
        OSError: it can't be replaced.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

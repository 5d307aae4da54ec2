"""Files that commands write: looked at before the work, written as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

from bequest.atomic import replacing
from bequest.errors import BequestError, UsageError


def require_file(path: Path | None, option: str, *suffixes: str) -> None:
    """Refuses a path that can't become a file, before work is spent on what it is to hold.

    Raises:
        UsageError: a folder, a folder that doesn't exist, or another suffix than ``suffixes``.
    """
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option}: expected a file, found the folder {path}")
    if not path.parent.is_dir():
        raise UsageError(f"{option}: there is no folder {path.parent} to write {path.name} into")
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{option}: expected {' or '.join(suffixes)}, found {path.name}")


def write(path: Path, content: bytes | str) -> None:
    """Replaces a file as a whole.

    Raises:
        BequestError: it can't be written; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with replacing(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise BequestError(f"{path} can't be written: {error}") from error

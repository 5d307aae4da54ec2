"""The folder of an artefact: written as a whole or not at all, and read without leaving it."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bequest.errors import ArtifactError, UsageError

TENSORS = "model.safetensors"
PLAN = "plan.json"
CONFIGURATION = "config.json"  # of transformers

_LARGEST_PLAN = 256 * 2**20


def as_path(directory: Any, call: str) -> Path:
    """A path from what a user gave to ``call``.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(directory, str | os.PathLike):
        raise UsageError(f"{call}: expected the path of a folder, found {type(directory).__name__}")
    return Path(directory)


def require_empty(target: Path, beside: str | None = None) -> None:
    """Raises UsageError unless ``target`` is absent or a folder with nothing but ``beside``."""
    if target.exists() and not target.is_dir():
        raise UsageError(f"save: expected a new or empty folder, found the file {target}")
    found = sorted(item.name for item in target.iterdir()) if target.exists() else []
    held = [name for name in found if name != beside]
    if held:
        raise UsageError(
            f"save: expected a new or empty folder, found {target} holding {', '.join(held[:3])}"
            f"{' ...' if len(held) > 3 else ''}; choose another folder or empty it"
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder to write all files into; they appear in ``target`` when the block ends well.

    A new target appears in one rename. An empty folder that exists is kept, as it may be a mount
    point or lie in a folder that can't be written: its files are moved into it, the plan or the
    configuration last, and without these nothing can be loaded. When the block fails, everything
    that was made is removed.
    """
    existed = target.exists()
    new_parents = [parent for parent in target.parents if not parent.exists()]
    staging = (target if existed else target.parent) / f".{secrets.token_hex(8)}.partial"
    try:
        staging.mkdir(parents=True)
        yield staging
        if existed:
            _move_in(staging, target)
        else:
            staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in new_parents:
            with suppress(OSError):
                parent.rmdir()
        raise


def _move_in(staging: Path, target: Path) -> None:
    moved: list[Path] = []
    files = sorted(staging.iterdir(), key=lambda file: file.name in (PLAN, CONFIGURATION))
    try:
        for file in files:
            moved += [file.replace(target / file.name)]
    except BaseException:
        for file in moved:
            file.unlink()
        raise
    staging.rmdir()


def existing(directory: str | os.PathLike[str]) -> Path:
    """The folder to read from.

    Raises:
        UsageError: there is nothing, or a file, or ``directory`` is no path.
        ArtifactError: no permission to look.
    """
    folder = as_path(directory, "load")
    try:
        is_folder, found = folder.is_dir(), "a file" if folder.exists() else "nothing"
    except OSError as error:
        raise ArtifactError(f"{folder} can't be read: {error}") from error
    if not is_folder:
        raise UsageError(f"load: expected a folder that bequest saved, found {found} at {folder}")
    return folder


def read_plan(folder: Path) -> bytes:
    """The bytes of ``plan.json``; its size is looked at before it is read.

    Raises:
        ArtifactError: the file is absent, too large, unreadable or leads out of the folder.
    """
    path = _member(folder, PLAN)
    try:
        size = path.stat().st_size
        if size > _LARGEST_PLAN:
            raise ArtifactError(f"{path}: expected at most {_LARGEST_PLAN} bytes, found {size}")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error


def verified_tensors(folder: Path, size: int, checksum: str) -> Path:
    """The path of ``model.safetensors`` after its size and SHA-256 were compared.

    Raises:
        ArtifactError: the file is absent, unreadable, leads out of the folder, or is not the one
            that was saved.
    """
    path = _member(folder, TENSORS)
    try:
        found = path.stat().st_size
        if found != size:
            raise ArtifactError(
                f"{path}: expected {size} bytes, found {found}; the file is truncated or altered"
            )
        if file_checksum(path) != checksum:
            raise ArtifactError(
                f"{path}: expected the SHA-256 {checksum}, found another; the file was altered"
            )
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error
    return path


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _member(folder: Path, name: str) -> Path:
    """The regular file ``name`` of the folder; a link that leads elsewhere is refused."""
    path = folder / name
    try:
        real = path.resolve(strict=True)
        home = folder.resolve(strict=True)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{folder}: expected {TENSORS} and {PLAN} as bequest saves them, found no {name}"
        ) from error
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError until Python 3.13
        raise ArtifactError(f"{path} can't be read: {error}") from error
    if real.parent != home:
        raise ArtifactError(f"{path}: expected a file, found a link out of the folder to {real}")
    if not real.is_file():
        raise ArtifactError(f"{path}: expected a regular file, found something else")
    return real

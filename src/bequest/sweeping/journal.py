"""The journal of a sweep: one line of JSON per finished cell, from which a killed sweep goes on."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bequest.artifact import fields
from bequest.artifact.parse import parse_group, parse_refusal
from bequest.errors import ArtifactError, BequestError, UsageError
from bequest.measure import Accuracy, Cost, Latency
from bequest.sweeping.comparison import Cell, Key

VERSION = 1
"""Of the form of a journal."""


class Journal:
    """A file that grows by whole lines: the first says which sweep it is of, the others hold cells.

    A line is written at once and reaches the disk before the next cell counts as done. What a
    crash or a full disk left of a last line is cut off: that cell is computed again.

    Attributes:
        cells: those that it holds.
    """

    def __init__(self, path: Path, sweep: Mapping[str, Any]) -> None:
        """Opens or makes the file.

        Args:
            path: of the journal.
            sweep: what the sweep is, in plain values.

        Raises:
            UsageError: it is the journal of another sweep, or no journal; another sweep writes it.
            ArtifactError: a line of it, other than the last, is damaged.
            BequestError: it can't be read or written.
        """
        self.path = path
        self.cells: dict[Key, Cell] = {}
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise BequestError(f"the journal {path} can't be opened: {error.strerror}") from error
        try:
            self._lock()
            self._read(json.loads(json.dumps(sweep)))
        except BaseException:
            os.close(self._file)
            raise

    def add(self, key: Key, cell: Cell) -> None:
        """Writes a finished cell down.

        Raises:
            BequestError: the line can't be written; those before it stay readable.
        """
        self.cells[key] = cell
        self._append({"cell": {"network": key.network, **_plain(cell)}})

    def _lock(self) -> None:
        """So that no second sweep writes into it; the system frees it with the process."""
        with suppress(ImportError):  # not on Windows
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    f"the journal {self.path} is being written by another sweep; wait for it, or "
                    "take another file"
                ) from error

    def _read(self, sweep: dict[str, Any]) -> None:
        content = b""
        with suppress(OSError), open(self._file, "rb", closefd=False) as file:
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines and content and not content.startswith(b'{"journal"'):
            raise UsageError(f"{self.path} is no journal of a sweep; take another file")
        if lines:
            self._require(sweep, lines[0])  # before anything of a file that is another's is touched
        os.ftruncate(self._file, len(whole))  # what was torn
        if not lines:
            self._append({"journal": VERSION, "sweep": sweep})
        for number, line in enumerate(lines[1:], start=2):
            try:
                record = fields.mapping(json.loads(line)["cell"], "the cell")
                key, cell = _parsed(record)
            except (ValueError, KeyError, TypeError, ArtifactError) as error:
                if number == len(lines):
                    os.ftruncate(self._file, len(whole) - len(line) - 1)
                    break
                raise ArtifactError(
                    f"{self.path}, line {number}: expected a cell of a sweep, found a damaged line "
                    f"({error}); take that line out, and its cell is computed again"
                ) from error
            self.cells[key] = cell

    def _require(self, sweep: dict[str, Any], line: bytes) -> None:
        try:
            head = json.loads(line)
            version, held = head["journal"], head["sweep"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self.path} is no journal of a sweep; take another file") from error
        if version != VERSION:
            raise UsageError(
                f"{self.path}: expected a journal of form {VERSION}, found {version!r}; take "
                "another file"
            )
        difference = _difference(held, sweep)
        if difference is not None:
            raise UsageError(
                f"{self.path} is the journal of another sweep: {difference}; take another file, or "
                "repeat that call"
            )

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(0, "the disk is full")
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, size)
            raise BequestError(
                f"the journal {self.path} can't be written: {error.strerror}; what it holds stays "
                "readable, and the same call goes on from there"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)


def _plain(value: Any) -> Any:
    """A cell as a line holds it; null for NaN and infinity, which JSON has not."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parsed(record: Mapping[str, object]) -> tuple[Key, Cell]:
    names = "network criterion restorer ratio seed accuracy cost groups refused seconds timed"
    network, criterion, restorer, ratio, seed, accuracy, cost, groups, refused, seconds, timed = (
        fields.record(record, "the cell", *names.split())
    )
    found = dict(fields.mapping(accuracy, "accuracy"))
    found["loss"] = math.nan if found["loss"] is None else found["loss"]
    cell = Cell(
        criterion=fields.text(criterion, "criterion"),
        restorer=fields.text(restorer, "restorer"),
        ratio=fields.finite(ratio, "ratio"),
        accuracy=Accuracy(**found),  # type: ignore[arg-type]
        cost=Cost(**fields.mapping(cost, "cost")),  # type: ignore[arg-type]
        groups=tuple(parse_group(one, "groups") for one in fields.sequence(groups, "groups")),
        refused=tuple(parse_refusal(one, "refused") for one in fields.sequence(refused, "refused")),
        seconds=fields.finite(seconds, "seconds"),
        seed=fields.integer(seed, "seed"),
        timed=None if timed is None else _timed(timed),
    )
    name = fields.text(network, "network")
    return Key(name, cell.criterion, cell.restorer, cell.seed, cell.ratio), cell


def _timed(value: object) -> tuple[Latency, Latency]:
    dense, pruned = (
        Latency(**fields.mapping(one, "timed"))  # type: ignore[arg-type]
        for one in fields.sequence(value, "timed")
    )
    return dense, pruned


def _difference(held: Any, asked: Any, where: str = "") -> str | None:
    """The first place in which two plain values differ, in words."""
    inside: list[tuple[str, Any, Any]] = []
    if isinstance(held, dict) and isinstance(asked, dict):
        keys = dict.fromkeys([*held, *asked])
        inside = [(f"{where}.{k}".removeprefix("."), held.get(k), asked.get(k)) for k in keys]
    elif isinstance(held, list) and isinstance(asked, list):
        both = enumerate(zip(held, asked, strict=False))
        inside = [(f"{where}[{place}]", *pair) for place, pair in both]
        inside.append((f"{where}, how many", len(held), len(asked)))
    elif held != asked:
        return f"{where}: expected {json.dumps(held)} as it holds, found {json.dumps(asked)}"
    found = (_difference(one, other, name) for name, one, other in inside)
    return next((one for one in found if one is not None), None)

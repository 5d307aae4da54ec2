"""Writes what a benchmark measured to results/NAME.json and results/NAME.md, with its setting."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

import bequest
from bequest.atomic import replacing

RESULTS = Path(__file__).parent / "results"


def shared_folder() -> Path:
    """The folder of real weights and images: ``$BEQUEST_SHARED``, or ``../shared``."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("BEQUEST_SHARED", default))
    if not (folder / "weights").is_dir():
        raise SystemExit(f"no real weights and images at {folder}; set BEQUEST_SHARED")
    return folder


def record(
    name: str, rows: Sequence[Sequence[object]], columns: Sequence[str], **facts: object
) -> None:
    """Prints a table and writes it, with the facts, date, machine and versions.

    Args:
        name: file name without suffix.
        rows: one sequence of JSON values per row, in the order of ``columns``.
        columns: the headings.
        **facts: whatever else is needed to repeat the run: ``seed``, sizes, a title.
    """
    setting = facts | {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{_cpu()}, {os.cpu_count()} cores",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "versions": f"bequest {bequest.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    page = _page(name, rows, columns, setting)
    RESULTS.mkdir(exist_ok=True)
    _write(RESULTS / f"{name}.json", json.dumps({**setting, "rows": table}, indent=2) + "\n")
    _write(RESULTS / f"{name}.md", page)
    print(page)


def renewed(name: str, rows: Sequence[Sequence[object]], key: int) -> list[Sequence[object]]:
    """The rows that were recorded before, with those just measured in their places or behind them.

    Args:
        name: as :func:`record` takes it.
        rows: those just measured.
        key: how many of the first columns say which row it is.
    """
    file = RESULTS / f"{name}.json"
    before = json.loads(file.read_text())["rows"] if file.exists() else []
    table: dict[tuple[object, ...], Sequence[object]] = {}
    for row in (*(list(one.values()) for one in before), *rows):
        table[tuple(row[:key])] = row
    return list(table.values())


def _page(
    name: str,
    rows: Sequence[Sequence[object]],
    columns: Sequence[str],
    setting: dict[str, object],
) -> str:
    lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    facts = "\n".join(f"* {key.replace('_', ' ')}: {value}" for key, value in setting.items())
    return f"# {name}\n\n{table}\n\n{facts}\n"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu() -> str:
    """The processor's name; Linux keeps it where ``platform`` doesn't look."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text)

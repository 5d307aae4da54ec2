"""How much memory there is to be had, of the machine and of what a container is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def free_memory() -> int | None:
    """Bytes of main memory that this process can still have; None where the system doesn't say.

    What the machine has available, and what each control group of the process (version 1 or 2)
    leaves of its limit. Pages of files, which give way, count as free.
    """
    told = [*_of_machine(), *_of_groups()]
    return max(0, min(told)) if told else None


def _of_machine() -> Iterator[int]:
    for line in _lines("proc/meminfo"):
        if line.startswith("MemAvailable"):
            yield 1024 * int(line.split()[1])


def _of_groups() -> Iterator[int]:
    for line in _lines("proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            folder, limit, used = Path("sys/fs/cgroup"), "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            folder, limit, used = (
                Path("sys/fs/cgroup/memory"),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        own = Path(path.strip("/"))
        for group in (own, *own.parents):  # a limit of any of them holds
            most, now = (_lines(folder / group / name) for name in (limit, used))
            if most and now and most[0].isdecimal():
                stat = dict(one.split() for one in _lines(folder / group / "memory.stat"))
                yield int(most[0]) - int(now[0]) + int(stat.get("inactive_file", 0))


def _lines(path: str | Path) -> list[str]:
    try:
        return (ROOT / path).read_text().splitlines()
    except OSError:  # another system, or a file that a container hides
        return []

"""The engine of one worker: this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bequest.sweeping.engines.base import Done, Engine, Job, Reference, attempted, resolved


class Embedded(Engine):
    """Runs jobs in turn where the caller is; nothing is carried."""

    workers = 1
    carries = False

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def put(self, value: Any) -> Reference:
        """Keeps the value itself."""
        reference = Reference(f"{len(self._held)}")
        self._held[reference.id] = value
        return reference

    def run(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """In the order of the jobs."""
        for place, job in enumerate(jobs):
            yield place, attempted(job.work, resolved(job.arguments, self._held))

    def __exit__(self, *raised: object) -> None:
        """Forgets what it held."""
        self._held.clear()

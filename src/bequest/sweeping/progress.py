"""How far a sweep is: cells done, running and failed."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Display:
    """A line on the standard error if that is a terminal and if it is wanted."""

    def __init__(self, total: int, kept: int, shown: bool) -> None:
        """Begins.

        Args:
            total: cells of the sweep.
            kept: of them that a journal holds.
            shown: whether it is wanted.
        """
        self.done, self.failed, self._total = kept, 0, total
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=total, completed=kept)

    def preparing(self) -> None:
        """Dense networks are measured and inputs made."""
        self._bar.update(self._task, description="dense networks and inputs")

    def finished(self, failed: bool, workers: int) -> None:
        """Another cell came to an end."""
        self.failed += failed
        self.done += not failed
        self.running(workers)

    def running(self, workers: int) -> None:
        """Tells the numbers; as many cells run as there are workers, or cells left."""
        left = self._total - self.done - self.failed
        words = f"{self.done}/{self._total} done · {min(workers, left)} running"
        self._bar.update(
            self._task,
            description=f"{words} · {self.failed} failed",
            completed=self.done + self.failed,
        )

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)

"""The local engine: one process for every idle core, each with one thread."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bequest.errors import UsageError
from bequest.sweeping.engines.base import (
    Done,
    Engine,
    Failed,
    Job,
    Reference,
    Setup,
    Worker,
    uncarried,
)

RETRIES = 2
"""Times that a job is given to another process when its own is lost."""


@dataclass
class _Process:
    """A worker from outside: the values that it holds, and the job that it does."""

    process: BaseProcess
    line: Connection
    held: set[str] = field(default_factory=set)
    job: int | None = None


class Processes(Engine):
    """Spawned processes, fed through pipes: weights and images go to each of them once.

    Values are pickled in memory, between processes of one user; no file is written.
    """

    def __init__(self, workers: int, setup: Setup | None = None) -> None:
        self.workers = workers
        self._setup = setup
        self._context = multiprocessing.get_context("spawn")
        self._values: dict[str, bytes] = {}
        self._started: list[_Process] = []

    def put(self, value: Any) -> Reference:
        """Keeps the value as it travels."""
        reference = Reference(f"{len(self._values)}")
        try:
            self._values[reference.id] = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # classes of the user's own raise anything
            raise UsageError(uncarried(value, error)) from error
        return reference

    def run(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """Gives the next job to whoever is free; a lost process is replaced."""
        waiting = deque(range(len(jobs)))
        losses = [0] * len(jobs)
        while waiting or any(one.job is not None for one in self._started):
            self._feed(jobs, waiting)
            busy = {one.line: one for one in self._started if one.job is not None}
            for line in wait(list(busy)):
                worker = busy[line]  # type: ignore[index]
                place = worker.job
                assert place is not None
                worker.job = None
                try:
                    done = pickle.loads(worker.line.recv_bytes())
                except (EOFError, OSError):
                    code = self._bury(worker)
                    losses[place] += 1
                    if losses[place] > RETRIES:
                        yield place, Failed(f"its process was lost {losses[place]} times ({code})")
                    else:
                        waiting.appendleft(place)
                    continue
                if isinstance(done, Failed):  # maybe before it had unpacked all
                    worker.held = set()
                yield place, done

    def _feed(self, jobs: Sequence[Job], waiting: deque[int]) -> None:
        while len(self._started) < min(self.workers, len(waiting) + self._busy()):
            self._start()
        for worker in [one for one in self._started if one.job is None]:
            if not waiting:
                return
            job = jobs[waiting[0]]
            values = {id: b"" if id in worker.held else self._values[id] for id in job.named}
            try:
                order = (values, job.work, job.arguments)
                worker.line.send_bytes(pickle.dumps(order, pickle.HIGHEST_PROTOCOL))
            except OSError:  # it died idle
                self._bury(worker)
                continue
            worker.held, worker.job = {*job.named}, waiting.popleft()

    def _busy(self) -> int:
        return sum(one.job is not None for one in self._started)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._setup), daemon=True)
        process.start()
        theirs.close()
        self._started.append(_Process(process, ours))

    def _bury(self, worker: _Process) -> str:
        self._started.remove(worker)
        worker.line.close()
        worker.process.join(timeout=5)
        return f"exit code {worker.process.exitcode}"

    def __exit__(self, *raised: object) -> None:
        """Ends the processes that were started."""
        for worker in self._started:
            worker.process.terminate()
        for worker in self._started:
            worker.process.join()
            worker.line.close()
        self._started.clear()


def _serve(line: Connection, setup: Setup | None) -> None:
    """What a process does until the line is cut."""
    sys.stdout = sys.stderr  # what a model prints is no result
    me = Worker(setup)
    while True:
        try:
            order = line.recv_bytes()
        except (EOFError, OSError):
            return
        values, work, arguments = pickle.loads(order)
        named = {id: partial(pickle.loads, value) for id, value in values.items()}
        done = me.perform(named, work, arguments)
        line.send_bytes(pickle.dumps(done, pickle.HIGHEST_PROTOCOL))

"""The engine of a cluster: Ray places every job by what it costs, and repeats what a node loses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from bequest.errors import MissingExtraError, UsageError
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
from bequest.sweeping.estimate import memory_of
from bequest.sweeping.network import Network

RETRIES = 3
"""Times that a job is repeated when its worker or node is lost."""

PATIENCE = 10
"""Seconds within which a cluster must answer."""


class Cluster(Engine):
    """A Ray cluster that runs already, or one on this machine that ends with the sweep.

    A job asks for one core, its estimated memory and, where it works on one, a GPU. Weights and
    images lie in Ray's object store, once for all jobs; a worker unpacks those of its last job.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, setup: Setup | None = None
    ) -> None:
        """Connects.

        Args:
            address: HOST:PORT of a cluster, ray://HOST:PORT, or "auto" for the one that this
                machine belongs to; None = one on this machine is started.
            workers: jobs that run at once, at most; None = as many as the cluster has cores.
            setup: what a worker does before it unpacks anything.

        Raises:
            MissingExtraError: Ray isn't installed.
            UsageError: no cluster answers at the address.
        """
        ray = require_ray()
        self._ray = ray
        self._setup = setup
        self._values: dict[str, Any] = {}
        self._memory: dict[str, int] = {}
        self._ours = not ray.is_initialized()
        if self._ours and address is not None:
            _require_answer(address)
        if self._ours:
            own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
            where = own if address is None else {"address": address}
            try:
                self._ray.init(log_to_driver=False, logging_level="ERROR", **where)
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                raise UsageError(_unanswered(address, error)) from error
        self.workers = workers or int(self._ray.cluster_resources().get("CPU", 1))
        self._limit = workers

    def put(self, value: Any) -> Reference:
        """Puts the value into the object store, packed, so that a worker is set up before."""
        try:
            packed = self._ray.cloudpickle.dumps(value)
        except Exception as error:  # classes of the user's own raise anything
            raise UsageError(uncarried(value, error)) from error
        reference = self._ray.put(packed)
        self._values[reference.hex()] = reference
        return Reference(reference.hex())

    def memory_of(self, network: Network) -> int:
        """As the traced network tells."""
        if network.name not in self._memory:
            self._memory[network.name] = memory_of(network)
        return self._memory[network.name]

    def run(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """Keeps the cluster busy, and asks it no more than that, so that it can be told to stop."""
        remote = self._ray.remote(_perform)
        waiting, running = deque(range(len(jobs))), dict[Any, int]()
        try:
            while waiting or running:
                while waiting and len(running) < self._room():
                    job = jobs[waiting[0]]
                    named = {id: self._values[id] for id in job.named}
                    sent = remote.options(**self._cost(job)).remote(
                        self._setup, named, job.work, job.arguments
                    )
                    running[sent] = waiting.popleft()
                (ready, *_), _ = self._ray.wait([*running], num_returns=1)
                yield running.pop(ready), self._outcome(ready)
        finally:
            for sent in running:
                self._ray.cancel(sent, force=True)

    def _room(self) -> int:
        """Jobs that the cluster has cores for, as nodes come and go."""
        cores = int(self._ray.cluster_resources().get("CPU", 1))
        self.workers = max(1, cores if self._limit is None else min(cores, self._limit))
        return self.workers

    def _cost(self, job: Job) -> dict[str, Any]:
        """What is asked for; no more memory than the largest node has, or the job would wait."""
        nodes = [one["Resources"] for one in self._ray.nodes() if one["Alive"]]
        if job.on_gpu and not any(one.get("GPU") for one in nodes):
            raise UsageError("a network is on a GPU, and no node of the Ray cluster has one")
        most = max((int(one.get("memory", 0)) for one in nodes), default=0)
        gpus = {"num_gpus": 1} if job.on_gpu else {}
        memory = {"memory": min(job.memory, most)} if job.memory and most else {}
        return {"num_cpus": 1, "max_retries": RETRIES, **gpus, **memory}

    def _outcome(self, sent: Any) -> Any:
        try:
            return self._ray.get(sent)
        except self._ray.exceptions.RayError as error:
            first = next(iter(str(error).strip().splitlines()), "")
            return Failed(f"its worker was lost ({type(error).__name__}: {first})")

    def __exit__(self, *raised: object) -> None:
        """Leaves the cluster, which ends if it was started here."""
        self._values.clear()
        if self._ours:
            self._ray.shutdown()


def require_ray() -> Any:
    """The package.

    Raises:
        MissingExtraError: it isn't installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "sweep", "a sweep on Ray") from error
    return ray


_me: list[Worker] = []
"""A worker process of Ray runs many jobs."""


def _perform(
    setup: Setup | None, named: dict[str, Any], work: Any, arguments: tuple[Any, ...]
) -> Any:
    """What a worker does; references in a dict are left for it to unpack when it is set up."""
    import ray

    if not _me:
        _me.append(Worker(setup))

    def unpacked(reference: Any) -> Any:
        return ray.cloudpickle.loads(ray.get(reference))

    values = {id: partial(unpacked, reference) for id, reference in named.items()}
    return _me[0].perform(values, work, arguments)


def _require_answer(address: str) -> None:
    """Asks a cluster whether it is there: Ray itself would wait for minutes.

    Raises:
        UsageError: it doesn't answer within :data:`PATIENCE` seconds.
    """
    try:
        if address.startswith("ray://") or ":" in address:
            place = urlsplit(address if "://" in address else f"ray://{address}")
            socket.create_connection((place.hostname, place.port), timeout=PATIENCE).close()
        if not address.startswith("ray://"):
            where = [] if address == "auto" else ["--address", address]
            words = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *where]
            subprocess.run(
                words, check=True, capture_output=True, timeout=PATIENCE, env={**os.environ}
            )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UsageError(_unanswered(address, error)) from error


def _unanswered(address: str | None, error: Exception) -> str:
    if address is None:
        return f"Ray can't be started on this machine: {error}"
    if address == "auto":
        return (
            "--address auto: expected a Ray cluster that this machine belongs to, found none; "
            "start one with 'ray start --head', or leave --address out"
        )
    return (
        f"--address {address}: expected a Ray cluster that answers within {PATIENCE} seconds, "
        f"found none; give HOST:PORT of its head node, or leave --address out"
    )

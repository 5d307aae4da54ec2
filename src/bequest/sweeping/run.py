"""sweep(): every cell of a grid, on idle cores or on a cluster, and again from where it stopped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bequest.calibration.inputs import Source
from bequest.errors import ModelError, UsageError
from bequest.measure import Accuracy, Cost
from bequest.selection.policy import Kinds
from bequest.selection.widths import Scope
from bequest.sweeping.bench import Settings, make_inputs, measure_dense, run_cell
from bequest.sweeping.comparison import Cell, Comparison, Failure, Key, Sweep
from bequest.sweeping.engines import Cluster, Engine, Failed, Job, Reference, local
from bequest.sweeping.engines.base import Setup
from bequest.sweeping.engines.ray import require_ray
from bequest.sweeping.grid import Grid
from bequest.sweeping.journal import Journal
from bequest.sweeping.network import Network
from bequest.sweeping.progress import Display

Engines = Literal["local", "ray"]


def sweep(
    networks: Network | Sequence[Network],
    *,
    ratios: Iterable[float] = (0.3, 0.5, 0.7),
    criteria: Iterable[Any] = ("l2",),
    restorers: Iterable[Any] = ("none", "merge", "lbyl", "regression"),
    seeds: Iterable[int] = (0,),
    groups: Kinds = "inner",
    scope: Scope = "group",
    round_to: int = 8,
    latency: bool = False,
    engine: Engines = "local",
    workers: int | None = None,
    address: str | None = None,
    journal: str | Path | None = None,
    setup: Setup | None = None,
    progress: bool = True,
) -> Sweep:
    """Prunes and measures networks × criteria × restorers × seeds × ratios.

    The same seeds give the same numbers with any engine and any number of workers: every cell works
    on one thread. A cell that fails is reported with its reason and doesn't stop the others.

    Args:
        networks: each with what it is measured on.
        ratios: shares of channels that each group loses, in [0, 1).
        criteria: who leaves; names or config objects.
        restorers: what they leave behind; names or config objects.
        seeds: of everything random.
        groups: as in :func:`bequest.prune`, as are the next two.
        scope: of the ranking.
        round_to: widths become multiples of it.
        latency: time every pruned network beside its dense one, on one thread.
        engine: "local": processes on this machine. "ray": a Ray cluster.
        workers: cells at once; 1 = in this process. None = as many as cores are idle and memory
            allows; of a cluster, all of its cores.
        address: of a Ray cluster: HOST:PORT, ray://HOST:PORT, or "auto". None = one on this machine
            is started.
        journal: a file that every finished cell is added to; where it exists, the sweep goes on
            from there.
        setup: what each worker process does first, a function of a module.
        progress: show on a terminal how many cells are done, running and failed.

    Raises:
        UsageError: an argument is wrong, no cluster answers, or the journal is of another sweep.
        MissingExtraError: Ray is asked for and isn't installed.
        BequestError: the journal can't be written.
    """
    nets = (networks,) if isinstance(networks, Network) else tuple(networks)
    settings = Settings(groups, scope, round_to, latency)
    grid = Grid.checked(nets, ratios, criteria, restorers, seeds, settings)
    check_engine(engine, workers, address)
    with ExitStack() as stack:
        book = None if journal is None else stack.enter_context(grid.journal(Path(journal)))
        held = (
            {}
            if book is None
            else {key: book.cells[key] for key in grid.tasks if key in book.cells}
        )
        show = stack.enter_context(Display(len(grid.tasks), len(held), progress))
        place = stack.enter_context(
            Cluster(address, workers, setup) if engine == "ray" else local(workers, setup, nets)
        )
        return _Run(grid, place, book, show, held, {}).result()


def check_engine(engine: str, workers: int | None, address: str | None) -> None:
    """Checks where a sweep is to run, before anything is opened for it.

    Raises:
        UsageError: an argument is wrong.
        MissingExtraError: Ray is asked for and isn't installed.
    """
    if engine not in ("local", "ray"):
        raise UsageError(f"engine: expected local or ray, found {engine!r}")
    if address is not None and engine != "ray":
        raise UsageError("address: it is that of a Ray cluster, for the engine ray; leave it out")
    if workers is not None and workers < 1:
        raise UsageError(f"workers: expected at least 1, found {workers!r}")
    if engine == "ray":
        require_ray()


@dataclass(frozen=True)
class _Run:
    """A sweep under way.

    Attributes:
        held: the cells that are finished.
        failed: those that came to nothing.
    """

    grid: Grid
    engine: Engine
    book: Journal | None
    show: Display
    held: dict[Key, Cell]
    failed: dict[Key, Failed]

    def result(self) -> Sweep:
        """Does what isn't done yet.

        Raises:
            BequestError: nothing could be measured of any network: why not of the first.
        """
        self.show.preparing()
        networks = self._networks()
        dense = self._dense(networks)
        self._cells(networks, self._inputs(networks))
        found: list[Comparison] = []
        lost: list[Failure] = []
        for network in self.grid.networks:
            failures = tuple(
                Failure(key, one.reason, one.exit_code)
                for key, one in self.failed.items()
                if key.network == network.name
            )
            if isinstance(measured := dense[network.name], Failed):
                lost += failures
            else:
                found.append(self._comparison(network, *measured, failures))
        if not found:
            error = UsageError if lost[0].exit_code == UsageError.exit_code else ModelError
            raise error(lost[0].reason)
        return Sweep(tuple(found), tuple(lost))

    def _pending(self) -> list[Key]:
        return [key for key in self.grid.tasks if key not in self.held and key not in self.failed]

    def _networks(self) -> dict[str, tuple[Network, Reference, Reference]]:
        """Every network, and what it is measured on, which several may share, put once."""
        measures: dict[int, Reference] = {}
        put = {}
        for one in self.grid.networks:
            if id(one.measure) not in measures:
                measures[id(one.measure)] = self.engine.put(one.measure)
            network = one.carried() if self.engine.carries else one.lent()
            put[one.name] = one, self.engine.put(network), measures[id(one.measure)]
        return put

    def _dense(
        self, networks: dict[str, tuple[Network, Reference, Reference]]
    ) -> dict[str, tuple[Accuracy, Cost] | Failed]:
        """What the dense networks give; where one can't be measured, none of its cells can."""
        jobs = [self._job(one, measure_dense, put, on) for one, put, on in networks.values()]
        names = [*networks]
        found = {names[place]: value for place, value in self.engine.run(jobs)}
        for key in self._pending():
            if isinstance(found[key.network], Failed):
                self.failed[key] = found[key.network]
        return found

    def _inputs(
        self, networks: dict[str, tuple[Network, Reference, Reference]]
    ) -> dict[tuple[str, Source, int], Reference]:
        """What layers are observed with in the cells that are still to be made."""
        sources = {key: self.grid.tasks[key].source for key in self._pending()}
        wanted = [*dict.fromkeys((k.network, s, k.seed) for k, s in sources.items() if s)]
        jobs = []
        for name, source, seed in wanted:
            network, put, _ = networks[name]
            jobs.append(self._job(network, make_inputs, put, source, seed))
        made: dict[tuple[str, Source, int], Reference] = {}
        for place, value in self.engine.run(jobs):
            if isinstance(value, Failed):
                name, source, seed = wanted[place]
                for key, one in sources.items():
                    if (key.network, one, key.seed) == (name, source, seed):
                        self.failed[key] = value
            else:
                made[wanted[place]] = self.engine.put(value)
        return made

    def _cells(
        self,
        networks: dict[str, tuple[Network, Reference, Reference]],
        inputs: dict[tuple[str, Source, int], Reference],
    ) -> None:
        """The cells, each written down as soon as it is there."""
        pending, jobs = self._pending(), []
        for key in pending:
            task = self.grid.tasks[key]
            network, put, on = networks[key.network]
            seen = None if task.source is None else inputs[key.network, task.source, key.seed]
            jobs.append(self._job(network, run_cell, put, on, seen, task, self.grid.settings))
        for _ in self.failed:
            self.show.finished(True, self.engine.workers)
        self.show.running(self.engine.workers)
        for place, value in self.engine.run(jobs):
            key = pending[place]
            if isinstance(value, Failed):
                self.failed[key] = value
            else:
                self.held[key] = value
                if self.book is not None:
                    self.book.add(key, value)
            self.show.finished(isinstance(value, Failed), self.engine.workers)

    def _job(self, network: Network, work: Any, *arguments: Any) -> Job:
        return Job(work, arguments, self.engine.memory_of(network), network.on_gpu)

    def _comparison(
        self, network: Network, accuracy: Accuracy, cost: Cost, failures: tuple[Failure, ...]
    ) -> Comparison:
        seeds = sorted({key.seed for key in self.grid.tasks})
        seed = {"seed": seeds[0]} if len(seeds) == 1 else {"seeds": seeds}
        own = [key for key in self.grid.tasks if key.network == network.name]
        return Comparison(
            network.name,
            network.measure.name,
            {**self.grid.settings.shared(), **seed},
            accuracy,
            cost,
            tuple(self.held[key] for key in own if key in self.held),
            network.measure.of_text,
            failures,
        )

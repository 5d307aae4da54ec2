"""The work of a sweep, piece by piece: what a worker does, whichever engine it belongs to.

Every piece runs on one thread, so that the same seeds give the same numbers wherever it runs.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

from bequest.analysis import Plain
from bequest.calibration.inputs import Source
from bequest.calibration.inputs.asked import samples_from
from bequest.calibration.samples import Samples
from bequest.call import Call
from bequest.criteria.base import Criterion
from bequest.errors import InputWarning, NothingPrunedWarning
from bequest.execution.copies import private_copy
from bequest.execution.threads import threads_of_torch
from bequest.graph.trace import require_runnable
from bequest.measure import Accuracy, Cost, cost
from bequest.measure.latency import latencies
from bequest.restorers.base import Restorer
from bequest.sweeping.comparison import Cell, Key
from bequest.sweeping.network import Measure, Network


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`bequest.prune` that all cells share, and what is measured."""

    groups: str = "inner"
    scope: str = "group"
    round_to: int = 8
    latency: bool = False

    def call(
        self, ratio: float, criterion: Any, restorer: Any, seed: int, data: Samples | None = None
    ) -> Call:
        """A call of :func:`bequest.prune`, checked.

        Raises:
            UsageError: an argument is wrong.
        """
        return Call.checked(
            ratio=ratio,
            target=None,
            criterion=criterion,
            restorer=restorer,
            seed=seed,
            data=data,
            progress=False,
            **self.shared(),
        )

    def shared(self) -> dict[str, Any]:
        """Those that :func:`bequest.prune` takes."""
        return {"groups": self.groups, "scope": self.scope, "round_to": self.round_to}


@dataclass(frozen=True)
class Task:
    """What a cell is made by."""

    key: Key
    criterion: Criterion
    restorer: Restorer
    source: Source | None
    """Makes the inputs where nobody gives any; None where none are looked at."""


def measure_dense(network: Network, measure: Measure) -> tuple[Accuracy, Cost]:
    """What the dense network gives and costs."""
    with threads_of_torch(1):
        network = network.placed()
        model = private_copy(network.model)
        return measure.accuracy(model), cost(model, network.example_inputs)


def make_inputs(network: Network, source: Source, seed: int) -> Samples:
    """What layers are observed and refitted with, in all cells of a seed."""
    with threads_of_torch(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # a note of the report says it
        network = network.placed()
        model, example = Plain.of(network.model).model, network.example_inputs
        require_runnable(model, example)
        made = samples_from(network.data, source, model, example, seed)
        chunks = tuple(tuple(part.cpu() for part in chunk) for chunk in made.chunks)
        return dataclasses.replace(made, chunks=chunks)


def run_cell(
    network: Network, measure: Measure, samples: Samples | None, task: Task, settings: Settings
) -> Cell:
    """Prunes and measures."""
    with threads_of_torch(1), warnings.catch_warnings():
        for one in (InputWarning, NothingPrunedWarning):  # notes of the report say it
            warnings.simplefilter("ignore", one)
        network = network.placed()
        model, example = network.model, network.example_inputs
        restorer = _within(task.restorer, network.value_range)
        call = settings.call(task.key.ratio, task.criterion, restorer, task.key.seed, samples)
        pruned, seconds = network.analyses.prune(model, example, call)
        timed = None
        if settings.latency:
            both = [private_copy(model), pruned.model]
            rounds = [latencies(both, example, warmup=3, repeats=9) for _ in range(3)]
            # The fastest of the medians is what a busy machine disturbs least.
            dense, other = (min(x, key=lambda one: one.median) for x in zip(*rounds, strict=True))
            timed = dense, other
        return Cell(
            criterion=task.key.criterion,
            restorer=task.key.restorer,
            ratio=task.key.ratio,
            accuracy=measure.accuracy(pruned.model),
            cost=pruned.report.after,
            groups=pruned.report.groups,
            refused=pruned.report.refused,
            seconds=seconds,
            seed=task.key.seed,
            timed=timed,
        )


def _within(restorer: Any, value_range: tuple[float, float] | None) -> Any:
    """The restorer as the plan is to name it: with the range of its inputs."""
    if value_range and getattr(restorer, "value_range", value_range) is None:
        return dataclasses.replace(restorer, value_range=value_range)
    return restorer

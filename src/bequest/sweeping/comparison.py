"""What a sweep found: cells of one network beside the dense one, and those of several."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bequest.artifact.plan import GroupPlan, Refusal
from bequest.measure import Accuracy, Cost, Latency


class Key(NamedTuple):
    """Which cell of a sweep."""

    network: str
    criterion: str
    restorer: str
    seed: int
    ratio: float

    def __str__(self) -> str:
        words = f"{self.network}: {self.criterion}, {self.restorer}, {100 * self.ratio:g} %"
        return f"{words}, seed {self.seed}" if self.seed else words


@dataclass(frozen=True)
class Cell:
    """One pruning: who chose, who restored, how much left, and what it gave.

    Attributes:
        criterion: name of the criterion.
        restorer: name of the restorer.
        ratio: share of channels that each group was asked to lose.
        accuracy: of the pruned network.
        cost: of the pruned network, for one input.
        groups: per group its kept and total channels and reconstruction error.
        refused: what stayed as it is although the call asked for it.
        seconds: time to prune and restore.
        seed: of every draw.
        timed: latencies of the dense and the pruned network, taken in turn; None = not measured.
    """

    criterion: str
    restorer: str
    ratio: float
    accuracy: Accuracy
    cost: Cost
    groups: tuple[GroupPlan, ...]
    refused: tuple[Refusal, ...]
    seconds: float
    seed: int = 0
    timed: tuple[Latency, Latency] | None = None

    @property
    def time_left(self) -> float | None:
        """The pruned network's latency as a share of the dense one's."""
        return None if self.timed is None else self.timed[1].median / self.timed[0].median

    def to_json(self) -> dict[str, Any]:
        """Plain values; of a group its numbers, not the indices of its channels."""
        timed = {}
        if self.timed is not None:
            dense, pruned = map(dataclasses.asdict, self.timed)
            timed = {"latency": {"dense": dense, "pruned": pruned}}
        return {
            "criterion": self.criterion,
            "restorer": self.restorer,
            "ratio": self.ratio,
            "seed": self.seed,
            "accuracy": dataclasses.asdict(self.accuracy),
            "cost": dataclasses.asdict(self.cost),
            "groups": [group_json(group) for group in self.groups],
            "refused": [dataclasses.asdict(refusal) for refusal in self.refused],
            "seconds": self.seconds,
            **timed,
        }


@dataclass(frozen=True)
class Failure:
    """A cell that came to nothing.

    Attributes:
        key: which one.
        reason: in one line.
        exit_code: of the command line, if all failed so.
    """

    key: Key
    reason: str
    exit_code: int = 1

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.key._asdict(), "reason": self.reason}


@dataclass(frozen=True)
class Comparison:
    """A dense network and its pruned forms.

    Attributes:
        model: what was pruned, in words.
        data: what it was measured on, in words.
        settings: what all cells share: groups, scope, round_to, seed (or seeds).
        accuracy: of the dense network.
        cost: of the dense network, for one input.
        cells: one per criterion, restorer, seed and ratio, in this order.
        of_text: whether accuracies are those of next tokens of a text.
        failed: the cells that came to nothing.
    """

    model: str
    data: str
    settings: Mapping[str, Any]
    accuracy: Accuracy
    cost: Cost
    cells: tuple[Cell, ...]
    of_text: bool = False
    failed: tuple[Failure, ...] = ()

    def figure(self, accuracy: Accuracy) -> float:
        """What networks are compared by: top-1 in percent, of a text the perplexity."""
        if not self.of_text:
            return accuracy.top1
        return math.exp(accuracy.loss) if accuracy.loss < 700 else math.inf

    @property
    def criteria(self) -> tuple[str, ...]:
        """Names, in the order of the cells."""
        return tuple(dict.fromkeys(cell.criterion for cell in self.cells))

    @property
    def restorers(self) -> tuple[str, ...]:
        """Names, in the order of the cells."""
        return tuple(dict.fromkeys(cell.restorer for cell in self.cells))

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ascending."""
        return tuple(sorted({cell.ratio for cell in self.cells}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(sorted({cell.seed for cell in self.cells}))

    def over_seeds(self, criterion: str, restorer: str, ratio: float) -> tuple[Cell, ...]:
        """The cells of these three that were measured, one per seed."""
        key = (criterion, restorer, ratio)
        return tuple(c for c in self.cells if (c.criterion, c.restorer, c.ratio) == key)

    def cell(self, criterion: str, restorer: str, ratio: float) -> Cell | None:
        """The cell of these three, of the first seed; None where it failed."""
        return next(iter(self.over_seeds(criterion, restorer, ratio)), None)

    def median(self, criterion: str, restorer: str, ratio: float) -> float | None:
        """The :meth:`figure` of these three, the median of the seeds; None where all failed."""
        cells = self.over_seeds(criterion, restorer, ratio)
        return statistics.median(self.figure(one.accuracy) for one in cells) if cells else None

    def refusals(self) -> tuple[Refusal, ...]:
        """What stayed as it is, over all cells, each once."""
        return tuple(dict.fromkeys(refusal for cell in self.cells for refusal in cell.refused))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "data": self.data,
            "of_text": self.of_text,
            "settings": dict(self.settings),
            "dense": {
                "accuracy": dataclasses.asdict(self.accuracy),
                "cost": dataclasses.asdict(self.cost),
            },
            "cells": [cell.to_json() for cell in self.cells],
            "failed": [one.to_json() for one in self.failed],
        }


@dataclass(frozen=True)
class Sweep:
    """Every network of a sweep.

    Attributes:
        comparisons: one per network that was measured, in the order of the call.
        failed: cells of the networks of which nothing could be measured.
    """

    comparisons: tuple[Comparison, ...]
    failed: tuple[Failure, ...] = ()

    @property
    def failures(self) -> tuple[Failure, ...]:
        """All cells that came to nothing."""
        return (*(each for one in self.comparisons for each in one.failed), *self.failed)

    def to_json(self) -> dict[str, Any]:
        """Plain values; those of the comparison where there is one network."""
        if len(self.comparisons) == 1 and not self.failed:
            return self.comparisons[0].to_json()
        return {
            "networks": [one.to_json() for one in self.comparisons],
            "failed": [one.to_json() for one in self.failed],
        }


def group_json(group: GroupPlan) -> dict[str, Any]:
    """A group's numbers in plain values, without the indices of its channels."""
    return {
        "name": group.name,
        "kind": group.kind,
        "producers": list(group.producers),
        "consumers": list(group.consumers),
        "kept": group.kept,
        "total": group.size,
        "restored_by": group.restored_by,
        "reconstruction_error": group.reconstruction_error,
        "notes": list(group.notes),
    }

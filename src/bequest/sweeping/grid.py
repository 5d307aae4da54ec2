"""The cells that a sweep is asked for, each by its key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from bequest.artifact.plan import versions
from bequest.errors import UsageError
from bequest.sweeping.bench import Settings, Task
from bequest.sweeping.comparison import Key
from bequest.sweeping.journal import Journal
from bequest.sweeping.network import Network, label


@dataclass(frozen=True)
class Grid:
    """What is asked for.

    Attributes:
        networks: in the order of the call.
        settings: what all cells share.
        tasks: in the order of the tables.
    """

    networks: tuple[Network, ...]
    settings: Settings
    tasks: Mapping[Key, Task]

    @classmethod
    def checked(
        cls,
        networks: tuple[Network, ...],
        ratios: Iterable[float],
        criteria: Iterable[Any],
        restorers: Iterable[Any],
        seeds: Iterable[int],
        settings: Settings,
    ) -> Grid:
        """Checks every call before the first is made.

        Raises:
            UsageError: an argument is wrong, or nothing is asked for.
        """
        names = [one.name for one in networks]
        if len({*names}) < len(names):
            raise UsageError(f"networks: expected names that differ, found {', '.join(names)}")
        axes = {
            "networks": networks,
            "criteria": _listed("criteria", criteria),
            "restorers": _listed("restorers", restorers),
            "seeds": sorted({*seeds}),
            "ratios": sorted({*ratios}),
        }
        empty = [name for name, values in axes.items() if not values]
        if empty:
            raise UsageError(f"{empty[0]}: expected at least one, found none")
        tasks: dict[Key, Task] = {}
        for network, criterion, restorer, seed, ratio in product(*axes.values()):
            call = settings.call(ratio, criterion, restorer, seed)
            source = None
            if call.reads_inputs:  # the criterion or the restorer
                source = call.restorer.inputs().within(network.value_range)
            key = Key(network.name, label(call.criterion), label(call.restorer), seed, float(ratio))
            if key in tasks:
                raise UsageError(f"expected cells that differ, found '{key}' twice")
            tasks[key] = Task(key, call.criterion, call.restorer, source)
        return cls(networks, settings, tasks)

    def journal(self, path: Path) -> Journal:
        """Opens the journal of this sweep."""
        sweep = {
            "networks": [one.describe() for one in self.networks],
            "criteria": [*dict.fromkeys(key.criterion for key in self.tasks)],
            "restorers": [*dict.fromkeys(key.restorer for key in self.tasks)],
            "seeds": sorted({key.seed for key in self.tasks}),
            "ratios": sorted({key.ratio for key in self.tasks}),
            "settings": asdict(self.settings),
            "versions": {name: versions()[name] for name in ("bequest", "torch")},
        }
        return Journal(path, sweep)


def _listed(what: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str):
        raise UsageError(f"{what}: expected several in a list, found the word {values!r}")
    return list(values)

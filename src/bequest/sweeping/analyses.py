"""What the cells of a sweep have in common: their network, traced and grouped once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn

from bequest.analysis import Analysis, Plain
from bequest.call import Call
from bequest.execution.modes import in_plain_mode
from bequest.execution.running import undisturbed
from bequest.pruning import Pruned, carried_out

MOST = 2
"""Analyses that are held: that of calls which read weights alone, and that of one set of inputs."""


class Held(NamedTuple):
    """An analysis, the call's inputs that it was made for, and the seconds that it took."""

    analysis: Analysis
    data: Any
    seconds: float


@dataclass
class Analyses:
    """Of one network, as long as nobody changes it."""

    held: list[Held] = field(default_factory=list)

    def __reduce__(self) -> tuple[type[Analyses], tuple[()]]:
        """They are made anew where a network is carried to."""
        return Analyses, ()

    @in_plain_mode
    def prune(self, model: nn.Module, example_inputs: Any, call: Call) -> tuple[Pruned, float]:
        """As :func:`bequest.prune`, and the seconds that it would take alone.

        Args:
            model: always the same.
            example_inputs: always the same.
            call: where it looks at inputs, it brings them along.
        """
        with undisturbed(model):
            start = time.perf_counter()
            held = next((one for one in self.held if one.data is call.data), None)
            if held is None:
                held = Held(Analysis.of(Plain.of(model), example_inputs, call), call.data, 0.0)
                held = held._replace(seconds=time.perf_counter() - start)
                self.held = [*self.held, held][-MOST:]
                start = time.perf_counter()
            pruned = carried_out(call, held.analysis.anew())
            return pruned, held.seconds + time.perf_counter() - start

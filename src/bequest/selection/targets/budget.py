"""Targets that are a share of what the dense network costs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from bequest.graph.trace import meta_copy
from bequest.selection.allocation import Allocation, Part, within_budget
from bequest.selection.targets.base import Met, Search, Target
from bequest.selection.widths import Choice
from bequest.surgery import operation
from bequest.surgery.cut import Cut
from bequest.surgery.cuts import plan_surgery


@dataclass(frozen=True)
class Budget(Target):
    """At most ``value`` times the dense network's cost stays, at the least predicted error."""

    @abstractmethod
    def part(self, part: Part) -> float:
        """What a channel carries of the cost, as a share."""

    @abstractmethod
    def cost(self, cut: Cut, model: nn.Module) -> int:
        """Of the cut network; the model is a copy without data, after the surgery."""

    def meet(self, search: Search) -> Met:
        """Asks the allocation, counts, corrects."""
        dense, channels = search.subject.dense, search.subject.channels
        allocation = Allocation(search.choices, channels, dense, self.part, search.bundles)
        before = self._cost(dense, Cut.of(channels))

        def share(asked: Sequence[Choice]) -> float:
            return self._cost(dense, Cut.of(channels, search.chosen(asked))) / before

        return Met(within_budget(allocation, share, self.value))

    def _cost(self, dense: nn.Module, cut: Cut) -> int:
        model = meta_copy(dense)
        operation.apply(model, plan_surgery(cut, dense))
        return self.cost(cut, model)

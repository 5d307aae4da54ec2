"""A network on its way to fewer channels: cut, restored, tried out before it is handed back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from bequest import config
from bequest.artifact.plan import Form, Refusal
from bequest.calibration.samples import Samples
from bequest.errors import ModelError
from bequest.execution.copies import duplicate
from bequest.graph.groups import Channels
from bequest.restorers.regression import Regression
from bequest.restorers.restoration import Restored, by_walk, in_weight_space
from bequest.selection.planning import Wish, narrowed
from bequest.surgery.cut import Chosen, Cut
from bequest.surgery.emission import NotEmittable, check_emittable, emit
from bequest.surgery.tryout import Finding, Trial


@dataclass(frozen=True)
class Outcome:
    """A network that computes what its plan says.

    Attributes:
        restored: the network and what was done to it.
        form: its own class, or a program.
        refused: groups that were taken out again, as the network would compute something else.
        notes: what could not be checked.
    """

    restored: Restored
    form: Form
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """What every cut of a network starts from.

    Attributes:
        model: the caller's model: copied, and never run.
        dense: a private copy that is run in its place.
        inputs: what it was traced with.
        channels: its groups.
        wish: the checked call.
        samples: what layers are observed and refitted with; None where weights alone are read.
    """

    model: nn.Module
    dense: nn.Module
    inputs: Any
    channels: Channels
    wish: Wish
    samples: Samples | None

    def cut(self, chosen: list[Chosen], form: Form) -> Restored:
        """The network without the chosen channels, restored as the call asks."""
        pruned = duplicate(self.model)
        if isinstance(self.wish.restorer, Regression):
            assert self.samples is not None
            result = by_walk(self.channels, chosen, self.dense, pruned, self.wish, self.samples)
        else:
            result = in_weight_space(self.channels, chosen, self.dense, pruned, self.wish)
        return self._as_program(chosen, result) if form == "program" else result

    def plain(self, chosen: list[Chosen], form: Form) -> Restored:
        """The same with nothing handed on."""
        none = config.resolve("restorer", "none")
        return replace(self, wish=replace(self.wish, restorer=none, progress=False)).cut(
            chosen, form
        )

    def sound(self, chosen: list[Chosen], form: Form) -> Outcome:
        """The network in the form, and without the groups, in which it computes what is planned.

        Raises:
            ModelError: there is no such form, and no group that could be left out.
        """
        restored = self.cut(chosen, form)
        finding = self._finding(chosen, restored)
        if finding.problem is None:
            return Outcome(restored, form, notes=_notes(finding))
        program = self._tried_as_program(chosen, restored) if form == "module" else None
        if program is not None:
            return Outcome(program, "program")
        good, misfits = narrowed([chosen], lambda some: self._plain_problem(some, form))
        refused = tuple(
            Refusal(
                group=one.group.name,
                size=one.group.size,
                reason=f"without its channels the network computes something else: {found}",
            )
            for one, found in misfits
        )
        restored = self.cut(good, form)
        finding = self._finding(good, restored)
        if finding.problem is not None:
            raise ModelError(
                f"the pruned network would not compute what is planned: {finding.problem}; "
                "prune fewer layers at a time (ratio={'layer': 0.5}), and please report the network"
            )
        return Outcome(restored, form, refused, _notes(finding))

    def _finding(self, chosen: list[Chosen], restored: Restored) -> Finding:
        cut = Cut.of(self.channels, chosen)
        return self._trial.of(cut, restored.surgery, restored.model)

    @cached_property
    def _trial(self) -> Trial:
        given = () if self.samples is None else self.samples.chunks[0]
        return Trial.over(self.dense, self.channels, self.inputs, given)

    def _plain_problem(self, chosen: list[Chosen], form: Form) -> str | None:
        return self._finding(chosen, self.plain(chosen, form)).problem

    def _tried_as_program(self, chosen: list[Chosen], restored: Restored) -> Restored | None:
        """The network as a program, if that computes what is planned where its class doesn't."""
        try:
            check_emittable(self.dense, self.inputs, self.channels)
            program = self._as_program(chosen, restored)
        except NotEmittable:
            return None
        return program if self._finding(chosen, program).problem is None else None

    def _as_program(self, chosen: list[Chosen], restored: Restored) -> Restored:
        cut = Cut.of(self.channels, chosen)
        program = emit(self.dense, self.inputs, cut, restored.model)
        return replace(restored, model=program.train(self.model.training))


def _notes(finding: Finding) -> tuple[str, ...]:
    if finding.unchecked is None:
        return ()
    return (f"its results were not compared with the plan's: {finding.unchecked}",)

"""Networks on their way to fewer channels: cut, restored, tried out before they are handed back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from bequest import config
from bequest.artifact.plan import Form, Refusal
from bequest.calibration.subject import Subject
from bequest.errors import ModelError
from bequest.graph.trace import refuse_inputs
from bequest.restorers.base import Attempt, Restored, Restorer
from bequest.surgery.cut import Chosen, Cut
from bequest.surgery.emission import NotEmittable, check_emittable, emit
from bequest.surgery.narrowing import narrowed
from bequest.surgery.program import Program
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

    @property
    def pruned(self) -> frozenset[str]:
        """Names of the groups that lost channels."""
        return frozenset(one.name for one in self.restored.groups)


@dataclass(frozen=True)
class Restoration:
    """What every cut of a network starts from.

    Attributes:
        subject: the dense network.
        restorer: what removed channels leave behind.
        form: the pruned network's own class, or a program.
        seed: of every draw.
        progress: whether progress bars are shown.
    """

    subject: Subject
    restorer: Restorer
    form: Form
    seed: int
    progress: bool

    def cut(self, chosen: list[Chosen]) -> Restored:
        """The network without the chosen channels, restored."""
        attempt = Attempt(self.subject, chosen, self.seed, self.progress)
        result = self.restorer.restore(attempt)
        return self._as_program(chosen, result) if self.form == "program" else result

    def plain(self, chosen: list[Chosen]) -> Restored:
        """The same with nothing handed on."""
        none = config.resolve("restorer", "none")
        return replace(self, restorer=none, progress=False).cut(chosen)

    def sound(self, chosen: list[Chosen]) -> Outcome:
        """The network in the form, and without the groups, in which it computes what is planned.

        Raises:
            ModelError: there is no such form, and no group that could be left out.
        """
        restored = self.cut(chosen)
        finding = self._finding(chosen, restored)
        if finding.problem is None:
            return Outcome(restored, self.form, notes=_notes(finding, restored))
        program = self._tried_as_program(chosen, restored) if self.form == "module" else None
        if program is not None:
            return Outcome(program, "program", notes=_notes(Finding(), program))
        good, misfits = narrowed([chosen], self._plain_problem)
        refused = tuple(
            Refusal(
                group=one.group.name,
                size=one.group.size,
                reason=f"without its channels the network computes something else: {found}",
            )
            for one, found in misfits
        )
        restored = self.cut(good)
        finding = self._finding(good, restored)
        if finding.problem is not None:
            refuse_inputs(self.subject.dense, self.subject.inputs)  # the dense one may fail, too
            raise ModelError(
                f"the pruned network would not compute what is planned: {finding.problem}; "
                "prune fewer layers at a time (ratio={'layer': 0.5}), and please report the network"
            )
        return Outcome(restored, self.form, refused, _notes(finding, restored))

    def _finding(self, chosen: list[Chosen], restored: Restored) -> Finding:
        cut = Cut.of(self.subject.channels, chosen)
        return self._trial.of(cut, restored.surgery, restored.model)

    @cached_property
    def _trial(self) -> Trial:
        subject = self.subject
        given = () if subject.samples is None else subject.samples.chunks[0]
        return Trial.over(subject.dense, subject.channels, subject.inputs, given)

    def _plain_problem(self, chosen: list[Chosen]) -> str | None:
        return self._finding(chosen, self.plain(chosen)).problem

    def _tried_as_program(self, chosen: list[Chosen], restored: Restored) -> Restored | None:
        """The network as a program, if that computes what is planned where its class doesn't."""
        try:
            check_emittable(self.subject.dense, self.subject.inputs, self.subject.channels)
            program = self._as_program(chosen, restored)
        except NotEmittable:
            return None
        return program if self._finding(chosen, program).problem is None else None

    def _as_program(self, chosen: list[Chosen], restored: Restored) -> Restored:
        subject = self.subject
        cut = Cut.of(subject.channels, chosen)

        def agrees(program: Program) -> bool:
            return self._trial.of(cut, restored.surgery, program).problem is None

        program = emit(subject.dense, subject.inputs, cut, restored.model, agrees)
        return replace(restored, model=program.train(subject.model.training))


def _notes(finding: Finding, restored: Restored) -> tuple[str, ...]:
    notes = []
    if finding.unchecked is not None:
        notes.append(f"its results were not compared with the plan's: {finding.unchecked}")
    if isinstance(restored.model, Program) and not restored.model.any_batch:
        notes.append(
            "it became a program for batches of the example's size alone: at others the network's "
            "code doesn't run, or not all that it says of the size is a whole multiple of it"
        )
    return tuple(notes)

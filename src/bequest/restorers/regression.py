"""Data-free regression: every layer behind a removal is refitted to what the dense network does.

Our own method (docs/methods.md, "regression"). The dense and the pruned network walk through the
graph in lock step over the same inputs. At each layer that reads something else than in the dense
network, a ridge regression with intercept maps what the pruned stream reads (its patches, x) to
what the dense stream writes (y), plus the error that the pruned stream carries in the branch that
the output is added to (r, in units before the layer's batch norm):

    min over ΔW, Δb of  Σ ‖y + r − (W₀ + ΔW)·x − b₀ − Δb‖² + ρ·‖ΔW‖²,

W₀ and b₀ the dense weights of the channels that stay, ρ = ridge × the mean diagonal of the centred
Gram of x. Centring the ridge on W₀ makes it harmless: nothing pruned upstream, nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from bequest.calibration.inputs import Source, Synthetic
from bequest.calibration.inputs.asked import Data, samples_from
from bequest.calibration.inputs.effort import effort_of
from bequest.calibration.inputs.synthetic import PASSES
from bequest.calibration.patches import as_weight
from bequest.calibration.samples import Samples
from bequest.calibration.subject import Subject
from bequest.config import later, number, register
from bequest.errors import UsageError
from bequest.restorers import distillation
from bequest.restorers.base import Attempt, Restored, Restorer
from bequest.restorers.by_walk import ByWalk
from bequest.restorers.descent import BATCH
from bequest.restorers.normal_equations import Solution, solve
from bequest.restorers.refit import Change, Seen


@register("restorer", "regression")
@dataclass(frozen=True)
class Regression(ByWalk):
    """Refits every layer behind a removal, over synthetic inputs or, with ``data=``, real ones.

    Attributes:
        images: of the synthetic inputs, as are the next three:
            :class:`~bequest.calibration.inputs.synthetic.Synthetic` says what they mean. Of real
            ones as many are taken at most.
        source: "leaves", "pink" or "white".
        value_range: lowest and highest value of real inputs, where known.
        inversion: steps by which images are fitted to what the network has learnt.
        ridge: penalty on the change of the weights, relative to the mean variance of the inputs;
            :data:`MADE_UP` times that where tokens are made up. None = 0.01, or
            :data:`CAREFUL` where inputs are made up and what they can tell is found by refinement.
        refine: steps by which layers are refined together behind the closed form
            (:mod:`bequest.restorers.refine`). None = as many as :data:`REFINING` allows, at most
            :data:`MOST_STEPS`, and none where that is less than :data:`FEWEST_STEPS` or tokens are
            made up; 0 = the closed form alone.
        effort: "quick", "default" or "long": by how much fewer or more images and steps there are,
            of inversion and of refinement, where nobody says how many.
        bias: "add" or "keep": whether layers without a bias may be given one. None = "keep" for
            classes of transformers, whose configuration couldn't say it. Layers that get none are
            fitted without intercept.
        neighbourhood: how far around inputs the pruned network is to follow the dense one, too, in
            standard deviations of the inputs: by adversarial distillation behind the walk
            (:mod:`bequest.restorers.distillation`). 0 = it isn't asked for.
        plain: the ridge regression of GRAIL and CORP: only layers that read fewer channels are
            refitted, to what they wrote and no more, and nothing is refined unless asked for.
    """

    name: ClassVar[str]

    images: int | None = None
    source: str = "leaves"
    value_range: tuple[float, float] | None = None
    inversion: int | None = None
    ridge: float | None = None
    refine: int | None = later(None)
    bias: str | None = later(None)
    plain: bool = later(False)
    effort: str = later("default")
    neighbourhood: float = later(0.0)

    def __post_init__(self) -> None:
        self.inputs()  # which checks its fields
        self.require_known_bias()
        if self.ridge is not None and not 0 <= number(self.ridge) < float("inf"):
            raise UsageError(f"regression: expected ridge ≥ 0, found {self.ridge!r}")
        steps = self.refine
        if steps is not None and (
            isinstance(steps, bool) or not isinstance(steps, int) or steps < 0
        ):
            raise UsageError(f"regression: expected refine ≥ 0, found {steps!r}")
        if not 0 <= number(self.neighbourhood) < float("inf"):
            found = self.neighbourhood
            raise UsageError(f"regression: expected neighbourhood ≥ 0, found {found!r}")

    def inputs(self) -> Source:
        """What makes the inputs up where no data is given."""
        return Synthetic(self.images, self.source, self.value_range, self.inversion, self.effort)

    def at(self, effort: str) -> Restorer:
        """The same with another effort."""
        return replace(self, effort=effort)

    def steps(self, subject: Subject) -> int:
        """Of refinement: those asked for, or what is affordable."""
        if self.refine is not None:
            return self.refine
        if self.plain:
            return 0
        if subject.samples is not None and subject.samples.tokens_alone:
            return 0
        effort = effort_of(self.effort)
        each = PASSES * BATCH * subject.work_of_one
        steps = min(int(effort.refinement * MOST_STEPS), int(effort.macs * REFINING) // each)
        return steps if steps >= FEWEST_STEPS else 0

    def distilling(self, subject: Subject) -> int:
        """Of distillation, where it is asked for: what is affordable, and a few at least."""
        if not self.neighbourhood:
            return 0
        each = distillation.PASSES * BATCH * subject.work_of_one
        affordable = int(effort_of(self.effort).macs * REFINING) // each
        return min(distillation.STEPS, max(FEWEST_STEPS, affordable))

    def restore(self, attempt: Attempt) -> Restored:
        """As every restorer by walk; how inputs came about decides the ridge if nobody says it."""
        if self.ridge is None and self._is_careful(attempt.subject):
            return replace(self, ridge=CAREFUL).restore(attempt)
        return super().restore(attempt)

    def _is_careful(self, subject: Subject) -> bool:
        samples = subject.samples
        known = samples is None or samples.real or samples.written or samples.tokens_alone
        return not known and self.steps(subject) > 0

    def refit(self, seen: Seen) -> Change:
        """Solves the layer's regression; what can't be solved is corrected by its biases alone."""
        if self.plain and not seen.loses_inputs:
            return Change()
        moments = seen.moments
        rows = sum(one.rows for one in moments.values())
        unknowns = next(iter(moments.values())).unknowns
        if rows == 1:
            return Change(notes=("a single row tells nothing of others: left as it is",))
        if not seen.layer.whole:
            own = {b: one for b, one in moments.items() if b and seen.owned[b]}
            shared = f"shared by {seen.layer.uses} calls, which read each other: left as it is"
            alone = (f"corrected by its bias '{bias}' alone" for bias in own)
            gains: dict[str | None, Tensor] = {b: one.means()[1] for b, one in own.items()}
            return Change(biases=gains, notes=(shared, *alone))
        ridge = (RIDGE if self.ridge is None else self.ridge) * (MADE_UP if seen.made_up else 1)
        solution = solve(list(moments.values()), ridge, intercept=seen.may_have_bias)
        notes = _notes(solution, rows, unknowns)
        if not seen.may_have_bias:
            notes.append("it has no bias of its own: fitted without intercept")
        return Change(
            as_weight(seen.layer.calls[0].geometry, solution.change, seen.weight.shape),
            dict(zip(moments, solution.intercepts, strict=False)),
            tuple(notes),
            solution,
        )

    def samples(
        self,
        model: nn.Module,
        example_inputs: Any,
        data: Data,
        seed: int,
        *,
        show: bool = False,
    ) -> Samples:
        """The inputs to walk over: from ``data``, or made up.

        Args:
            model: the dense network; a copy of it is run.
            example_inputs: whose shapes and types they get.
            data: batches of real inputs, or the samples of an earlier call, which are all taken,
                or a source of inputs; None = they are made up.
            seed: of the draws.
            show: a progress bar on a terminal.
        """
        return samples_from(data, self.inputs(), model, example_inputs, seed, show=show)


FEWEST_STEPS, MOST_STEPS = 16, 200
"""Steps of refinement where nobody says how many."""

REFINING = 8 * 10**12
"""Multiply-accumulates of refinement where nobody says how many steps: minutes on a CPU."""

RIDGE, CAREFUL = 0.01, 0.1
"""The ridge where nobody says it. Made-up images lead a closed form astray where they differ from
real ones; with the larger ridge it follows them less, and refinement finds what that leaves."""

MADE_UP = 100
"""Times the ridge where tokens are made up: layers see so little of texts in them that following
them closely does more harm than nothing handed on."""


def _notes(solution: Solution, rows: int, unknowns: int) -> list[str]:
    notes = []
    if rows < unknowns:
        notes.append(
            f"{rows} samples for {unknowns} unknowns, held by the ridge alone, which was raised to "
            f"{solution.ridge:.3g}; give more images"
        )
    if solution.by_eigenvalues:
        notes.append("ill-conditioned inputs, solved by eigenvalues")
    if solution.constant == unknowns and solution.intercepts:
        notes.append("none of its inputs varies: only its bias was corrected")
    return notes

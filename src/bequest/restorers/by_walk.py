"""Restorers by walk: every layer behind a removal is refitted, as both networks see inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from bequest.artifact.plan import GroupPlan
from bequest.calibration.layers import Layer
from bequest.calibration.subject import Subject
from bequest.calibration.walk import Walk
from bequest.graph.trace import named_tensors
from bequest.restorers.base import Attempt, Restored, Restorer, group_plan
from bequest.restorers.distillation import Distillation, require_slopes
from bequest.restorers.former import Former
from bequest.restorers.held_back import Errors, Measure, split
from bequest.restorers.new_biases import mean_behind, taken_up
from bequest.restorers.recurrent import MeasureRecurrent, RefitRecurrent
from bequest.restorers.refine import Refine
from bequest.restorers.refit import Change, Refit, Seen
from bequest.surgery import operation
from bequest.surgery.cut import Chosen
from bequest.surgery.cuts import plan_surgery

SEEN = "errors are those on the inputs that were fitted to: there are too few to hold any back"

KEPT = "refined in vain: the closed form stays"

VAIN = "distilled in vain: its weights are those of the walk"

WORSE = 1.05
"""Times the error without the refit, above which it is said to have made things worse."""


class ByWalk(Restorer):
    """Removes channels, then changes every layer behind them in one walk over the network.

    The dense and the pruned network walk in lock step over the same inputs
    (:class:`~bequest.calibration.walk.Walk`). A tenth of the inputs is held back: errors in the
    report are those of the finished network on them.
    """

    reads_inputs: ClassVar[bool] = True

    plain: bool = False
    """Whether a layer is only to write what it wrote, without what its branch lacks."""

    neighbourhood: float = 0.0
    """How far inputs are moved by adversarial distillation, in standard deviations; 0 = none."""

    @abstractmethod
    def refit(self, seen: Seen) -> Change:
        """What a layer's weight and biases are to change by.

        Args:
            seen: the layer, what it reads in the pruned network and what it should write.
        """

    def steps(self, subject: Subject) -> int:
        """Of refinement behind the closed form; see :mod:`bequest.restorers.refine`."""
        return 0

    def distilling(self, subject: Subject) -> int:
        """Steps of distillation behind the walk; see :mod:`bequest.restorers.distillation`."""
        return 0

    def restore(self, attempt: Attempt) -> Restored:
        """Walks over the inputs: to refit layers, to refine them if asked for, and to measure.

        Raises:
            ModelError: a layer meets values that are not finite, or its new weights don't fit into
                the model's half precision.
        """
        model, samples = attempt.subject.dense, attempt.subject.samples
        assert samples is not None
        pruned, surgery = attempt.sharing_copy(), plan_surgery(attempt.cut, model)
        operation.apply(pruned, surgery)
        attempt.own(pruned)
        walk = Walk(attempt.cut, model, pruned)
        if self.neighbourhood:
            require_slopes(walk, samples, self.neighbourhood)
        reading, adds = attempt.subject.channels.reading, self.adds_biases(model)
        refit = Refit(
            walk,
            self.refit,
            attempt.seed,
            made_up=samples.tokens_alone,
            may_give=lambda layer: adds or mean_behind(reading, layer) is not None,
            name=self.name,
            former=Former(named_tensors(model), surgery),
            plain=self.plain,
        )
        fitted, held_back = split(samples)
        show = attempt.progress
        refine = Refine(walk, self.steps(attempt.subject), attempt.seed, refit.former)

        def change(layer: Layer) -> None:
            refit(layer)
            refine(layer)

        walk.run(
            fitted.chunks,
            change,
            recur=RefitRecurrent(refit),
            self_calibrate=not samples.real,
            regions=refine.regions,
            show=show,
        )
        vain, changed = False, refit.former.changed
        if changed and (steps := self.distilling(attempt.subject)):
            distillation = Distillation(walk, fitted, changed, self.neighbourhood, attempt.seed)
            vain = distillation.run(steps, show=show).in_vain
            for name, value in distillation.tensors.items():
                walk.write(name, value, "distillation")
        measure = Measure(walk, refit.former, refit.new_biases)
        walk.run(
            held_back.chunks,
            measure,
            recur=MeasureRecurrent(measure, refit.changes),
            self_calibrate=False,
            title="measuring",
            show=show,
        )
        if adds:
            surgery = replace(surgery, biases=tuple(refit.new_biases))
        else:
            taken_up(pruned, reading, refit.new_biases)
        errors = measure.errors()
        groups = (self._plan(one, refit, refine, errors, walk.constant) for one in attempt.chosen)
        if held_back is fitted:
            groups = (replace(one, notes=(*one.notes, SEEN)) for one in groups)
        if vain:
            groups = (replace(one, notes=(*one.notes, VAIN)) for one in groups)
        return Restored(pruned, surgery, tuple(groups))

    def _plan(
        self,
        one: Chosen,
        refit: Refit,
        refine: Refine,
        errors: Mapping[str, Errors],
        constant: Mapping[str, int],
    ) -> GroupPlan:
        """A group's part in a walk: how well the layers that read it could be refitted."""
        changes = refit.changes
        met = [name for name in one.group.readers if name in changes]
        lost = [name for name in one.group.readers if name not in changes]
        notes = [f"not refitted: {', '.join(lost)}"] if lost else []
        notes += [
            f"{name}: {constant[name]} of its channels are constant over the inputs"
            for name in one.group.layers
            if name in constant
        ]
        notes += [f"{name}: {note}" for name in met for note in changes[name].notes]
        notes += [
            f"{name}: {KEPT}" for name in met if name in refine.gains and refine.gains[name].in_vain
        ]
        notes += [
            f"{name}: further from the dense network than without the refit, on inputs held back "
            f"({errors[name].before:.3g} → {errors[name].after:.3g}); give real inputs, or more of "
            "them"
            for name in met
            if errors[name].after > WORSE * errors[name].before
        ]
        if not met:
            return group_plan(one, "none", None, tuple(notes))
        worst = max((errors[name] for name in met), key=lambda error: error.after)
        fits = [fit for fit in (changes[name].fit for name in met) if fit is not None]
        return replace(
            group_plan(one, self.name, worst.after, tuple(notes)),
            unrestored_error=worst.before,
            condition=max((fit.condition for fit in fits), default=None),
            ridge=max((fit.ridge for fit in fits), default=None),
        )

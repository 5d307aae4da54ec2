"""prune(): trace → group → select → cut → restore → check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bequest.artifact.fingerprint import fingerprint
from bequest.artifact.lineage import continued, remember
from bequest.artifact.plan import Form, GroupPlan, Plan, Refusal, versions
from bequest.artifact.store import save
from bequest.calibration.inputs import Source, Synthetic
from bequest.calibration.inputs.asked import Data, resolved, samples_from
from bequest.calibration.samples import Samples
from bequest.criteria.base import Criterion
from bequest.errors import UsageError
from bequest.execution.copies import private_copy
from bequest.execution.modes import in_plain_mode
from bequest.execution.running import undisturbed
from bequest.graph.admission import admit
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import inputs_for, require_runnable, trace
from bequest.hypersphere.structure import as_plain
from bequest.measure.cost import Cost
from bequest.restorers.attempt import Attempt
from bequest.restorers.base import Restorer
from bequest.restorers.regression import Regression
from bequest.selection.asking import require_used, warn_of_nothing
from bequest.selection.choosing import Choice, Ratio, Scope
from bequest.selection.planning import Kinds, Wish, chosen_from, require_sound, select
from bequest.selection.targets.latency import meet_latency
from bequest.selection.targets.meeting import Subject, cost_without_data, meet
from bequest.surgery.cut import Chosen
from bequest.surgery.program import Program
from bequest.surgery.training import training_notes, with_training


@dataclass(frozen=True)
class Report:
    """What pruning did, in numbers.

    Attributes:
        groups: per pruned group its kept and total channels, restorer and reconstruction error.
        refused: groups that stayed as they were although the call asked for them, and why.
        before: parameters, multiply-accumulates and bytes of the given model.
        after: the same of the pruned model.
        notes: what else is worth knowing of the whole network; above all why its results could not
            be compared with those of the dense network without the channels, where they couldn't.
    """

    groups: tuple[GroupPlan, ...]
    refused: tuple[Refusal, ...]
    before: Cost
    after: Cost
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """A pruned network.

    Attributes:
        model: a module of the same class with fewer channels, in the mode of the original; a
            :class:`~bequest.surgery.program.Program` where sizes in the code of that class don't
            let it hold them (``plan.form`` says which).
        plan: what left, what was handed on, what was refused and why; from the first dense network
            on, where a network is pruned in several steps.
        report: kept and total channels and reconstruction error per group; cost before and after.
    """

    model: nn.Module
    plan: Plan
    report: Report

    @property
    def program(self) -> Program | None:
        """The model where it is a program, that is without its class; else None."""
        return self.model if isinstance(self.model, Program) else None

    def save(self, directory: str | Path) -> None:
        """Writes ``model.safetensors`` and ``plan.json`` into a new or empty folder.

        Raises:
            UsageError: the folder has files in it.
        """
        save(directory, self.model, self.plan)


@in_plain_mode
def prune(
    model: nn.Module,
    example_inputs: Any,
    ratio: Ratio | None = None,
    *,
    target: str | None = None,
    groups: Kinds = "inner",
    criterion: str | Criterion = "l2",
    scope: Scope = "group",
    restorer: str | Restorer | Regression = "regression",
    data: Data = None,
    round_to: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> Pruned:
    """Removes channels of a trained network for real and hands what they knew to those that stay.

    No training, and no data needed. The given model is neither changed nor run. Before the pruned
    one is handed back it has run: its results are those of the dense network whose removed channels
    are zero, with the same refits, to rounding.

    Args:
        model: a trained module; its weights are read in evaluation mode.
        example_inputs: a tensor, tuple or dict; only shape, dtype and device matter.
        ratio: share of the channels that each group loses, in [0, 1), 0.5 where there's no target
            either; or shell patterns on producers' qualified names → shares: the first match
            counts, no match = not pruned.
        target: instead of a ratio, what the whole network is to reach: "params:0.5" or "macs:0.5",
            the share of the dense network's that stays; "agreement:0.99", the share of inputs to
            which the pruned network gives the dense one's answer, with as much pruned as that
            allows. Each group then loses as much as costs the least predicted error. "latency:0.5",
            the share of the dense network's time on ``example_inputs``, measured: all groups lose
            the same share, and ``plan.recipe["timed"]`` holds the milliseconds.
        groups: "inner" (between two layers of one branch) or "all" (residual streams too).
        criterion: who leaves; a name or a config object.
        scope: channels are ranked within their "group", or over all groups ("global").
        restorer: what they leave behind; a name or a config object.
        data: inputs for what looks at inputs: the restorer "regression", the criteria "obs" and
            "mutual-information", a target. Batches of real, unlabelled ones; or what makes them, a
            name or a config object of :mod:`bequest.calibration.inputs`, such as
            ``Synthetic(images=1024)``; or the ``Samples`` that :meth:`Regression.samples` made, for
            several calls. None = no data: they are made up.
        round_to: widths become multiples of this in groups of at least twice as many channels.
        seed: of everything random.
        progress: show a progress bar on a terminal.

    Returns:
        The pruned model with its plan and report.

    Raises:
        UsageError: an argument is wrong.
        ModelError: the model is refused by name or can't be exported.

    Warns:
        NothingPrunedWarning: no channel left although the call asked for it; ``report.refused``
            says why of every group and pattern.
    """
    wish = Wish.checked(
        ratio=ratio,
        target=target,
        groups=groups,
        criterion=criterion,
        scope=scope,
        restorer=restorer,
        round_to=round_to,
        seed=seed,
        progress=progress,
    )
    data = resolved(data)
    admit(model)
    model, forgotten = as_plain(model)
    with undisturbed(model):
        dense = private_copy(model)
        args, kwargs = inputs_for(dense, example_inputs)
        example_inputs = kwargs or args
        samples = _samples(wish, dense, example_inputs, data)
        inputs = example_inputs if samples is None else samples.shaped_like(example_inputs)
        channels = with_training(group(read(trace(dense, inputs))), dense, inputs)
        choices, refused, form = select(dense, inputs, channels, wish, samples)
        attempt = Attempt(model, dense, inputs, channels, wish, samples)
        choices, timed = _allocated(attempt, choices, form, example_inputs)
        chosen = chosen_from(choices, wish)
        if wish.target is not None and form == "module":
            require_sound(dense, inputs, channels, chosen)
        outcome = attempt.sound(chosen, form)
        restored, refused = outcome.restored, (*refused, *outcome.refused)
        before, after = (cost_without_data(one, example_inputs) for one in (dense, restored.model))
    named = data.to_json() if isinstance(data, Source) else {}
    seen = {} if samples is None else {"inputs": {**samples.to_json(), **named}}
    plan = Plan(
        architecture=fingerprint(model),
        recipe={**wish.to_json(), **timed, **seen},
        versions=versions(),
        groups=restored.groups,
        refused=refused,
        surgery=restored.surgery,
        form="program" if isinstance(restored.model, Program) else "module",
    )
    whole = continued(model, plan)
    trained: tuple[str, ...] = ()
    if plan.form == "module":
        trained = training_notes(channels, plan.surgery, dense, restored.model, inputs)
    remember(restored.model, whole.plan, whole.dense)
    idle = warn_of_nothing(wish.ratio, restored.groups, refused)
    notes = (*idle, *forgotten, *whole.notes, *trained, *outcome.notes)
    if samples is not None:
        notes = (*samples.notes, *notes)
    report = Report(restored.groups, refused, before, after, notes)
    return Pruned(restored.model, whole.plan, report)


def _allocated(
    attempt: Attempt, choices: list[Choice], form: Form, example_inputs: Any
) -> tuple[list[Choice], dict[str, Any]]:
    """The choices with the ratios by which a target is met; and what was timed for it."""
    wish = attempt.wish
    if wish.target is None:
        return choices, {}
    if wish.target.kind == "latency":

        def cut(chosen: list[Chosen]) -> nn.Module:
            if form == "module":
                require_sound(attempt.dense, attempt.inputs, attempt.channels, chosen)
            return attempt.plain(chosen, form).model

        choices, timed = meet_latency(wish, choices, attempt.dense, example_inputs, cut)
        return choices, {"timed": timed.to_json()}
    assert attempt.samples is not None
    subject = Subject(attempt.dense, attempt.channels, attempt.samples, attempt.inputs)
    return meet(wish, choices, subject, lambda chosen: attempt.cut(chosen, form).model), {}


def _samples(
    wish: Wish, model: nn.Module, example_inputs: Any, data: Samples | Source | None
) -> Samples | None:
    """What layers are observed with; None where weights alone are read."""
    if wish.needs_inputs:
        require_used(wish.restorer, data)
        require_runnable(model, example_inputs)
        method = wish.restorer
        made_up = method.inputs() if isinstance(method, Regression) else Synthetic()
        return samples_from(data, made_up, model, example_inputs, wish.seed, show=wish.progress)
    if data is not None:
        raise UsageError(
            f"data: the criterion '{wish.criterion.name}' and the restorer "
            f"'{wish.restorer.name}' read weights alone; use restorer='regression', or leave data "
            "out"
        )
    return None

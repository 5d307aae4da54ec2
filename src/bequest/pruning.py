"""prune() and what it returns: trace → group → select → cut → restore → check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from bequest.analysis import Analysis, Plain
from bequest.artifact.card import model_card
from bequest.artifact.fingerprint import fingerprint
from bequest.artifact.lineage import continued, remember
from bequest.artifact.plan import GroupPlan, Plan, Refusal, versions
from bequest.artifact.pretrained import save_pretrained
from bequest.artifact.store import save
from bequest.calibration.inputs import Source
from bequest.calibration.inputs.asked import Data
from bequest.calibration.subject import Subject
from bequest.call import Call
from bequest.criteria.base import Criterion
from bequest.execution.devices import device_of
from bequest.execution.modes import in_plain_mode
from bequest.execution.randomness import begin_at
from bequest.execution.running import undisturbed
from bequest.graph.results import shrunk
from bequest.measure.cost import Cost, cost_without_data
from bequest.restorers.base import Restorer
from bequest.restorers.restoration import Restoration
from bequest.selection.bearing import final_form
from bequest.selection.outcome import warn_of_nothing
from bequest.selection.policy import Kinds
from bequest.selection.ratio import Ratio
from bequest.selection.selecting import select
from bequest.selection.targets.base import Met, Search, met
from bequest.selection.widths import Scope, chosen_from
from bequest.surgery.cut import Cut
from bequest.surgery.program import Program
from bequest.surgery.training import training_notes


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

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes a new or empty folder that ``from_pretrained`` of transformers loads by itself.

        The tensors, a configuration of the new widths, the tokeniser's files where the network was
        loaded from a folder, and a model card. It was loaded again and compared before it appears.

        Raises:
            UsageError: the folder has files in it, or the network isn't one of transformers'.
            ModelError: no configuration of its class says its widths; the message names them.
        """
        report, origin = self.report, str(getattr(self.model, "name_or_path", None) or "")
        costs = {
            "parameters": (report.before.params, report.after.params),
            "multiply-accumulates": (report.before.macs, report.after.macs),
            "bytes": (report.before.bytes, report.after.bytes),
        }
        card = model_card(self.plan, costs, report.notes, origin)
        save_pretrained(directory, self.model, self.plan, card)


@in_plain_mode
def prune(
    model: nn.Module,
    example_inputs: Any,
    ratio: Ratio | None = None,
    *,
    target: str | None = None,
    groups: Kinds = "inner",
    criterion: str | Criterion | None = None,
    scope: Scope = "group",
    restorer: str | Restorer = "regression",
    effort: str | None = None,
    data: Data = None,
    outputs: Sequence[str | int] | None = None,
    round_to: int = 8,
    uniform: bool = False,
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
        criterion: who leaves; a name or a config object. None = "obs" where the restorer looks at
            inputs anyway, "l2" in groups that it can't or takes long to rank, and where it
            doesn't or ``scope`` is "global".
        scope: channels are ranked within their "group", or over all groups ("global").
        restorer: what they leave behind; a name or a config object.
        effort: of the restorer "regression": "quick", "default" or "long", which makes more and
            better inputs and takes more steps, for about ten times the time. None = its own.
        data: inputs for what looks at inputs: the restorer "regression", the criteria "obs" and
            "mutual-information", a target. Batches of real, unlabelled ones; or what makes them, a
            name or a config object of :mod:`bequest.calibration.inputs`, such as
            ``Synthetic(images=1024)``; or the ``Samples`` that a source's ``make`` has made, for
            several calls. None = no data: they are made up.
        outputs: which of several results count, by name or place: ["logits"]; those of the others
            may lose channels, as a stream among the hidden states does, and stay what they are
            otherwise. None = all count.
        round_to: widths become multiples of this in groups of at least twice as many channels; of
            more than 8 in all groups, and narrower ones stay whole.
        uniform: layers of a kind keep equal widths, also under a target; of a network of
            transformers only widths are pruned that a configuration of its class can say
            (:meth:`Pruned.save_pretrained`).
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
    call = Call.checked(
        ratio=ratio,
        target=target,
        groups=groups,
        criterion=criterion,
        scope=scope,
        restorer=restorer,
        effort=effort,
        data=data,
        outputs=outputs,
        round_to=round_to,
        uniform=uniform,
        seed=seed,
        progress=progress,
    )
    plain = Plain.of(model)
    with undisturbed(plain.model):
        return carried_out(call, Analysis.of(plain, example_inputs, call))


def carried_out(call: Call, analysis: Analysis) -> Pruned:
    """What a call makes of a network that was read for it, or for one that reads it alike.

    To be called inside of ``undisturbed``.
    """
    subject = analysis.subject
    begin_at(call.seed, device_of(subject.dense))
    selection = select(subject, call)
    restoration = Restoration(subject, call.restorer, selection.form, call.seed, call.progress)
    search = Search(selection.choices, restoration, call.round_to, selection.bundles)
    found = _allocated(call, search)
    chosen = chosen_from(found.choices, call.scope, call.round_to)
    if call.target is not None:  # its widths are others than those that were tried out
        restoration = replace(restoration, form=final_form(subject, chosen))
    outcome = restoration.sound(chosen)
    pruned = outcome.restored.model
    before, after = (
        cost_without_data(one, subject.example_inputs) for one in (subject.dense, pruned)
    )
    plan = Plan(
        architecture=fingerprint(subject.model),
        recipe={**call.to_json(), **found.recipe, **_seen(subject, call)},
        versions=versions(),
        groups=outcome.restored.groups,
        refused=(*selection.refused, *outcome.refused),
        surgery=outcome.restored.surgery,
        form="program" if isinstance(pruned, Program) else "module",
    )
    whole = continued(subject.model, plan)
    remember(pruned, whole.plan, whole.dense)
    left = Cut.of(subject.channels, [one for one in chosen if one.group.name in outcome.pruned])
    told = (*analysis.notes, *shrunk(subject.channels, call.outputs, left.shape))
    notes = (*told, *whole.notes, *_trained(subject, plan, pruned), *outcome.notes)
    idle = warn_of_nothing(call.ratio, plan.groups, plan.refused)
    made = () if subject.samples is None else subject.samples.notes
    report = Report(plan.groups, plan.refused, before, after, (*made, *idle, *notes))
    return Pruned(pruned, whole.plan, report)


def _allocated(call: Call, search: Search) -> Met:
    """The ratios by which a target is met; without one those of the call."""
    return Met(search.choices) if call.target is None else met(call.target, search)


def _seen(subject: Subject, call: Call) -> dict[str, Any]:
    """What the recipe says of the inputs."""
    if subject.samples is None:
        return {}
    named = call.data.to_json() if isinstance(call.data, Source) else {}
    return {"inputs": {**subject.samples.to_json(), **named}}


def _trained(subject: Subject, plan: Plan, pruned: nn.Module) -> tuple[str, ...]:
    """What training the pruned network needs; a program does what evaluation does."""
    if plan.form == "program":
        return ()
    return training_notes(subject.channels, plan.surgery, subject.dense, pruned, subject.inputs)

"""Progressive pruning that keeps accuracy and robustness, with a bound on what changes.

In small steps: in every layer those pairs of channels merge whose merging can change the output
least, or alike for all classes; the whole pruning so far is restored; and what it can change at the
output, for any input in the range, is bounded anew. After Meng, Bai, Teo & Dong (arXiv 2204.00783).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from bequest import config
from bequest.artifact.fingerprint import fingerprint
from bequest.artifact.lineage import continued, remember
from bequest.artifact.plan import Plan, versions
from bequest.call import Call
from bequest.errors import UsageError
from bequest.execution.copies import duplicate
from bequest.execution.modes import in_plain_mode
from bequest.execution.progress import tracked
from bequest.execution.reparametrised import as_stored
from bequest.execution.running import undisturbed
from bequest.graph.admission import admit
from bequest.hypersphere.convert import as_plain
from bequest.measure.cost import cost
from bequest.restorers.base import Restorer
from bequest.robust.annealing import Informed, Strategy
from bequest.robust.inputs import InputRange, to_json
from bequest.robust.records import RobustPruned, RobustReport, Step
from bequest.robust.run import Pace, Run
from bequest.selection.outcome import warn_of_nothing
from bequest.selection.ratio import Ratio
from bequest.surgery.training import training_notes

ALPHA = 0.75
"""Weight of the size of a change against its evenness: the paper's for networks of ReLU."""

Callback = Callable[[Step, nn.Module], object]
"""Called after every step with the step and the network as it is then."""


@in_plain_mode
def prune(
    model: nn.Module,
    example_inputs: Any,
    input_range: InputRange = (0, 1),
    ratio: Ratio = 0.5,
    step: float = 1 / 64,
    strategy: str | Strategy = "stochastic",
    alpha: float = ALPHA,
    restorer: str | Restorer = "sum",
    seed: int = 0,
    callback: Callback | None = None,
    *,
    progress: bool = False,
) -> RobustPruned:
    """Removes channels in small steps that change the output as little as can be guaranteed.

    Every layer between two others takes part, hidden units and filters alike. A pair of channels
    merges: what reads the one is added to what reads the other. Filters of layers that can't merge
    leave plainly, those with the smallest mean |w| first. No data is needed. The given model is not
    changed.

    Args:
        model: a trained module; its weights are read in evaluation mode.
        example_inputs: a tensor, tuple or dict; only shapes, dtypes and device matter.
        input_range: lowest and highest value of an input, as the network reads it: two numbers, or
            two tensors that broadcast to one input, (C, 1, 1) for channels.
        ratio: share of the channels that each layer loses, in [0, 1), or shell patterns on layers'
            names → shares, as in :func:`bequest.prune`.
        step: share of a layer's channels that leave in one step, in (0, 1].
        strategy: "baseline", "greedy", "stochastic", or a config object.
        alpha: weight of the size of a change against its evenness over the outputs, in [0, 1]. The
            paper has 0.75 for networks of ReLU and 0.05 for those of sigmoid units. The strategy
            "baseline", which looks at no change, takes none.
        restorer: what the channels that left leave behind after each step: "sum" as in the paper,
            another weight-space restorer, or "regression"; a name or a config object.
        seed: of everything random.
        callback: called after every step with the :class:`Step` and the network as it is then.
        progress: show a progress bar on a terminal.

    Returns:
        The pruned model with its plan; the report is a :class:`RobustReport`.

    Raises:
        UsageError: an argument is wrong, or the ratio is out of the strategy's reach.
        ModelError: the model is refused by name, can't be exported, or returns several tensors.

    Warns:
        NothingPrunedWarning: no channel left although the call asked for it.
    """
    if callback is not None and not callable(callback):
        raise UsageError(f"callback: expected a function, found {type(callback).__name__}")
    chosen: Strategy = config.resolve("strategy", strategy, Strategy)
    _check_share("step", step, step > 0 if _is_number(step) else False, "(0, 1]")
    _check_share("alpha", alpha, alpha >= 0 if _is_number(alpha) else False, "[0, 1]")
    if alpha != ALPHA and not isinstance(chosen, Informed):
        raise UsageError(f"alpha: the strategy '{chosen.name}' scores no changes; leave alpha out")
    call = checked_call(ratio, restorer, seed)
    _check_reach(call.shares, chosen)

    model, _ = as_stored(model)
    admit(model)
    model, forgotten = as_plain(model)
    with undisturbed(model):
        run = Run(model, example_inputs, input_range, Pace(step, chosen, alpha), call)
        restored = run.restored()
        change, gaps = run.certified(restored)
        steps: list[Step] = []
        for number in tracked(range(run.count), "pruning", range(run.count), progress):
            temperature = 1 - run.removed
            decisions = run.step(restored)
            restored = run.restored()
            change, gaps = run.certified(restored)
            width = float((change.upper - change.lower).mean())
            steps.append(Step(number + 1, run.removed, temperature, tuple(decisions), width))
            if callback is not None:
                callback(steps[-1], duplicate(restored.model))
        change = run.tightened(restored, change)
        before, after = (cost(one, example_inputs) for one in (run.subject.dense, restored.model))
    plan = Plan(
        architecture=fingerprint(model),
        recipe={
            **call.to_json(),
            "criterion": config.to_json(chosen),
            "step": step,
            "alpha": alpha,
            "input_range": to_json(input_range),
        },
        versions=versions(),
        groups=restored.groups,
        refused=tuple(run.refused),
        surgery=restored.surgery,
    )
    whole = continued(model, plan)
    remember(restored.model, whole.plan, whole.dense)
    channels = run.subject.channels
    trained = training_notes(channels, plan.surgery, model, restored.model, example_inputs)
    idle = warn_of_nothing(call.ratio, restored.groups, run.refused)
    report = RobustReport(
        groups=restored.groups,
        refused=tuple(run.refused),
        before=before,
        after=after,
        certified_change=(change.lower[0], change.upper[0]),
        unbounded=gaps,
        notes=(*idle, *run.notes, *forgotten, *whole.notes, *trained),
        steps=tuple(steps),
    )
    return RobustPruned(restored.model, whole.plan, report)


def checked_call(ratio: Any, restorer: Any, seed: Any) -> Call:
    """The arguments that progressive pruning shares with :func:`bequest.prune`.

    Raises:
        UsageError: one of them is wrong.
    """
    return Call.checked(
        ratio=ratio,
        target=None,
        groups="inner",
        criterion="l1",  # not asked: the strategy takes its place
        scope="group",
        restorer=restorer,
        round_to=1,
        seed=seed,
        progress=False,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_share(name: str, value: Any, above: bool, bounds: str) -> None:
    if not above or value > 1:
        raise UsageError(f"{name}: expected a number in {bounds}, found {value!r}")


def _check_reach(ratio: Ratio, strategy: Strategy) -> None:
    most = max(ratio.values()) if isinstance(ratio, Mapping) else ratio
    if most > 0.5 and not strategy.recursive:
        raise UsageError(
            f"ratio: the strategy '{strategy.name}' merges each channel once at most, which "
            f"reaches 0.5; found {most:g}. Use {type(strategy).__name__}(recursive=True), or "
            "another strategy"
        )

"""What progressive pruning reports of its steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bequest.pruning import Pruned, Report


@dataclass(frozen=True)
class Decision:
    """One candidate of one step.

    Attributes:
        layer: name of the group.
        kept: the channel that stays; None where the other one leaves plainly.
        removed: the channel that leaves.
        saliency: ‖w̃_a − w̃_b‖·‖outgoing_b‖; None where it leaves plainly.
        score: of its impact on the output, lower is better; None where none was computed.
        accepted: whether it was carried out.
    """

    layer: str
    kept: int | None
    removed: int
    saliency: float | None
    score: float | None
    accepted: bool


@dataclass(frozen=True)
class Step:
    """One step of progressive pruning.

    Attributes:
        number: from 1.
        removed: share of the channels of the pruned layers that have left after this step.
        temperature: of the annealing: 1 − the share that had left before.
        decisions: every candidate that was looked at.
        change: mean width over the outputs of the certified change after this step; may be ∞.
    """

    number: int
    removed: float
    temperature: float
    decisions: tuple[Decision, ...]
    change: float


@dataclass(frozen=True, kw_only=True)
class RobustReport(Report):
    """What progressive pruning did, in numbers.

    Attributes:
        certified_change: (lower, upper), float64 tensors of one output's shape: pruned minus dense
            output lies between them for every input in the range, in exact arithmetic.
        unbounded: operators without an interval rule that make ends infinite, by place.
        notes: also layers that fell back to saliency alone, and why.
        steps: every step with all its decisions.
    """

    certified_change: tuple[Tensor, Tensor]
    unbounded: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class RobustPruned(Pruned):
    """A :class:`bequest.Pruned` whose report says what pruning can change."""

    report: RobustReport

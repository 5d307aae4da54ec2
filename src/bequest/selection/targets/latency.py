"""Meets a target of latency: one ratio for all groups, bisected over what real cuts measure.

Time follows from widths in steps, by kernels, caches and threads, so that no count of operations
tells it: each candidate is cut for real, without restoration, and timed in turn with the dense
network on the example inputs, on the device where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from bequest.errors import UsageError
from bequest.execution.progress import tracked
from bequest.measure.latency import Latency, latencies
from bequest.selection.allocation import Target
from bequest.selection.choosing import Choice
from bequest.selection.planning import Wish, chosen_from
from bequest.surgery.cut import Chosen

TOLERANCE = 0.03
"""How far the share of the dense network's time may be above the target, or stay below it."""

STEPS = 9
"""Candidates that are timed, the narrowest network first."""

NARROWEST = 1 - 1e-6
"""A ratio at which every group keeps as little as rounding lets it."""

Timer = Callable[[Sequence[nn.Module], Any], list[Latency]]


@dataclass(frozen=True)
class Timed:
    """A candidate and what was measured of it.

    Attributes:
        ratio: what each group loses.
        dense_ms: of the dense network, in milliseconds: the 10th percentile of the passes, since
            others' work on the machine only ever adds to the time.
        pruned_ms: of the cut one, timed in turn with it.
        device: where, e.g. "cpu".
        threads: of the CPU.
    """

    ratio: float
    dense_ms: float
    pruned_ms: float
    device: str
    threads: int

    @property
    def share(self) -> float:
        """Of the dense network's time."""
        return self.pruned_ms / self.dense_ms

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def interleaved(models: Sequence[nn.Module], example_inputs: Any) -> list[Latency]:
    """Passes in turn, after a warm-up."""
    return latencies(models, example_inputs, repeats=21, warmup=3)


def meet_latency(
    wish: Wish,
    choices: Sequence[Choice],
    model: nn.Module,
    example_inputs: Any,
    cut: Callable[[list[Chosen]], nn.Module],
    timer: Timer = interleaved,
) -> tuple[list[Choice], Timed]:
    """The choices with the ratio by which the target is met, and what was measured at it.

    The search ends at a share within :data:`TOLERANCE` of the target; where widths come in steps
    that skip it, at the slowest candidate below.

    Args:
        wish: the checked call, with a target of latency.
        choices: groups with scores.
        model: the dense network.
        example_inputs: what both are timed on.
        cut: gives the pruned network of a selection; nothing needs to be restored.
        timer: times networks in turn.

    Raises:
        UsageError: it can't be met; the message says what was reached.
    """
    assert wish.target is not None
    if not choices:
        raise UsageError(f"target {wish.target}: no group of this network can lose channels")
    wanted = wish.target.value

    def timed(ratio: float) -> Timed:
        candidate = cut(chosen_from(_at(choices, ratio), wish))
        dense, pruned = timer([model, candidate], example_inputs)
        return Timed(ratio, dense.p10, pruned.p10, dense.device, dense.threads)

    best: Timed | None = None
    low, high = 0.0, NARROWEST
    for _ in tracked(range(STEPS), "timing cuts", range(STEPS), wish.progress):
        found = timed(NARROWEST if best is None else (low + high) / 2)
        if found.share <= wanted + TOLERANCE:
            high, best = found.ratio, found
        elif best is None:
            raise UsageError(_out_of_reach(wish.target, found))
        else:
            low = found.ratio
        if best.share >= wanted - TOLERANCE:
            break
    assert best is not None
    return _at(choices, best.ratio), best


def _out_of_reach(target: Target, narrowest: Timed) -> str:
    return (
        f"target {target}: expected a share of the dense network's time that pruning can reach, "
        f"found {narrowest.share:.2f} at best: {narrowest.pruned_ms:.3g} of "
        f"{narrowest.dense_ms:.3g} ms with every group at its narrowest; ask for a larger share, "
        "or for groups='all'"
    )


def _at(choices: Sequence[Choice], ratio: float) -> list[Choice]:
    return [replace(choice, ratio=ratio) for choice in choices]

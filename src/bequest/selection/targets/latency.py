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

from bequest.artifact.export import runner
from bequest.config import later, register
from bequest.errors import UsageError
from bequest.execution.progress import tracked
from bequest.measure.latency import Latency as Passes
from bequest.measure.latency import latencies, timed_in_turn
from bequest.selection.bearing import require_sound
from bequest.selection.targets.base import Met, Search, Target
from bequest.selection.widths import Choice

TOLERANCE = 0.03
"""How far the share of the dense network's time may be above the target, or stay below it."""

STEPS = 9
"""Candidates that are timed, the narrowest network first."""

REPEATS, WARMUP = 21, 3
"""Passes of each network that are timed, and passes before them."""

NARROWEST = 1 - 1e-6
"""A ratio at which every group keeps as little as rounding lets it."""


Clock = Callable[[Sequence[nn.Module], Any], list[Passes]]
"""Times networks in turn on the example inputs."""


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


def interleaved(models: Sequence[nn.Module], example_inputs: Any) -> list[Passes]:
    """Passes in turn, after a warm-up."""
    return latencies(models, example_inputs, repeats=REPEATS, warmup=WARMUP)


def by_onnxruntime(models: Sequence[nn.Module], example_inputs: Any) -> list[Passes]:
    """The same, each network as an ONNX file."""
    return timed_in_turn(
        [runner(model, example_inputs) for model in models], REPEATS, WARMUP, "cpu (onnxruntime)"
    )


@register("target", "latency")
@dataclass(frozen=True)
class Latency(Target):
    """At most ``value`` times the dense network's time on the example inputs, measured.

    The search ends at a share within :data:`TOLERANCE` of that; where widths come in steps that
    skip it, at the slowest candidate below. All groups lose the same share.

    Attributes:
        value: the share.
        runtime: who runs the networks: "torch", or "onnx": onnxruntime, on the CPU.
    """

    observes = False

    runtime: str = later("torch")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runtime not in ("torch", "onnx"):
            raise UsageError(
                f"target {self}: expected one of the runtimes torch, onnx, found {self.runtime!r}"
            )

    def __str__(self) -> str:
        return super().__str__() + ("" if self.runtime == "torch" else f"@{self.runtime}")

    def meet(self, search: Search) -> Met:
        """Bisects the ratio over real cuts, of which nothing needs to be restored."""
        best: Timed | None = None
        low, high = 0.0, NARROWEST
        clock = interleaved if self.runtime == "torch" else by_onnxruntime
        shown = search.restoration.progress
        for _ in tracked(range(STEPS), "timing cuts", range(STEPS), shown):
            found = _timed(search, NARROWEST if best is None else (low + high) / 2, clock)
            if found.share <= self.value + TOLERANCE:
                high, best = found.ratio, found
            elif best is None:
                raise UsageError(_out_of_reach(self, found))
            else:
                low = found.ratio
            if best.share >= self.value - TOLERANCE:
                break
        assert best is not None
        return Met(_at(search.choices, best.ratio), {"timed": best.to_json()})


def _timed(search: Search, ratio: float, clock: Clock) -> Timed:
    """The dense network and the one without that share, timed in turn."""
    subject, restoration = search.subject, search.restoration
    chosen = search.chosen(_at(search.choices, ratio))
    if restoration.form == "module":
        require_sound(subject, chosen)
    candidate = restoration.plain(chosen).model
    dense, pruned = clock([subject.dense, candidate], subject.example_inputs)
    return Timed(ratio, dense.p10, pruned.p10, dense.device, dense.threads)


def _out_of_reach(target: Latency, narrowest: Timed) -> str:
    return (
        f"target {target}: expected a share of the dense network's time that pruning can reach, "
        f"found {narrowest.share:.2f} at best: {narrowest.pruned_ms:.3g} of "
        f"{narrowest.dense_ms:.3g} ms with every group at its narrowest; ask for a larger share, "
        "or for groups='all'"
    )


def _at(choices: Sequence[Choice], ratio: float) -> list[Choice]:
    return [replace(choice, ratio=ratio) for choice in choices]

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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from bequest.calibration.inputs.batching import Batching
from bequest.calibration.inputs.given import collect
from bequest.calibration.inputs.making import inverted, synthesise
from bequest.calibration.inputs.scale import noted
from bequest.calibration.inputs.synthetic import SOURCES
from bequest.calibration.samples import CHUNK, Samples
from bequest.config import register
from bequest.errors import UnknownNameError, UsageError
from bequest.execution.copies import private_copy
from bequest.execution.devices import device_of
from bequest.execution.modes import in_plain_mode
from bequest.execution.precision import at_least_single, working_dtype
from bequest.execution.running import placed
from bequest.graph.inputs import mapped, normalise_inputs
from bequest.graph.trace import inputs_for
from bequest.measure.cost import cost


@register("restorer", "regression")
@dataclass(frozen=True)
class Regression:
    """Refits every layer behind a removal, over synthetic inputs or, with ``data=``, real ones.

    Attributes:
        images: number of inputs; None = 256, and up to 4,096 for networks so small that all of them
            together take no more than :data:`BUDGET` multiply-accumulates.
        source: synthetic inputs: "leaves", "pink" or "white"
            (:mod:`bequest.calibration.inputs.synthetic`).
        value_range: lowest and highest value of real inputs, where known; matters to networks
            without batch norm. None = zero mean and unit variance per channel.
        inversion: steps by which images are fitted to the statistics of the network's batch norms,
            or, where it has none, to its classes (:mod:`bequest.calibration.inputs.inverted`); each
            takes a forward and a backward pass. None = 12, and down to 3 where all of them together
            take more than :data:`EFFORT` multiply-accumulates.
        ridge: penalty on the change of the weights, relative to the mean variance of the inputs;
            :data:`MADE_UP` times that where tokens are made up.
    """

    name: ClassVar[str]

    images: int | None = None
    source: str = "leaves"
    value_range: tuple[float, float] | None = None
    inversion: int | None = None
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("inversion", 0)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"regression: expected {name} ≥ {least}, found {value!r}")
        if self.source not in SOURCES:
            raise UnknownNameError("source", str(self.source), SOURCES)
        if not 0 <= self.ridge < float("inf"):
            raise UsageError(f"regression: expected ridge ≥ 0, found {self.ridge!r}")
        if self.value_range is not None:
            low, high = self.value_range
            if not -float("inf") < low < high < float("inf"):
                raise UsageError(f"regression: expected a range low < high, found {low}, {high}")

    @in_plain_mode
    def samples(
        self,
        model: nn.Module,
        example_inputs: Any,
        data: Samples | Iterable[Any] | None,
        seed: int,
        *,
        show: bool = False,
    ) -> Samples:
        """The inputs to walk over: from ``data``, or made up.

        Args:
            model: the dense network; a copy of it is run.
            example_inputs: whose shapes and types they get.
            data: batches of real inputs, or the samples of an earlier call, which are all taken;
                None = they are made up.
            seed: of the draws.
            show: a progress bar on a terminal.
        """
        model = private_copy(at_least_single(model))
        args, kwargs = inputs_for(model, example_inputs)
        example_inputs = mapped(kwargs or args, lambda one: one.to(working_dtype(one.dtype)))
        if isinstance(data, Samples):
            return data.placed_like(example_inputs, device_of(model))
        if data is not None:
            most = self.images or _affordable(_macs_of_one(model, example_inputs))
            return noted(collect(model, data, example_inputs, most), model, example_inputs)
        count, steps = self.images, self.inversion
        if count is None or steps is None:
            each = _macs_of_one(model, example_inputs)
            count = count or _affordable(each)
            if steps is None:
                bearable = EFFORT // (PASSES * count * each)
                steps = min(MOST_STEPS, max(FEWEST_STEPS, bearable))
        made = synthesise(model, example_inputs, count, self.source, self.value_range, seed)
        made = inverted(model, made, example_inputs, steps, self.value_range, seed, show=show)
        return noted(made, model, example_inputs)


FEWEST, MOST = 256, 4096
"""Inputs that are looked at where nobody says how many."""

FEWEST_STEPS, MOST_STEPS = 3, 12
"""Steps of inversion where nobody says how many."""

EFFORT = 10**13
"""Multiply-accumulates up to which there are more than the fewest steps: minutes on a CPU."""

PASSES = 3
"""What a step takes, in forward passes: one, and backwards two."""

BUDGET = 4 * 10**9
"""Multiply-accumulates of a pass of all inputs up to which there are more than the fewest."""

MADE_UP = 100
"""Times the ridge where tokens are made up: layers see so little of texts in them that following
them closely does more harm than nothing handed on."""


def _affordable(each: int) -> int:
    """How many inputs, in whole chunks, are looked at where nobody says it; each costs MACs."""
    chunks = -(-max(FEWEST, BUDGET // each) // CHUNK)
    return min(MOST, chunks * CHUNK)


def _macs_of_one(model: nn.Module, example_inputs: Any) -> int:
    """Multiply-accumulates of one input, at least 1."""
    args, kwargs = normalise_inputs(example_inputs)
    macs = cost(model, mapped(placed(kwargs or args, model), Tensor.clone)).macs
    return max(1, macs // Batching.of(example_inputs).size)

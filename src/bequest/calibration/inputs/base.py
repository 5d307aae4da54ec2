"""What every source of inputs is: inputs in the shapes of the example, made for one network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from bequest import config
from bequest.calibration.inputs.batching import Batching
from bequest.calibration.inputs.images import Range
from bequest.calibration.inputs.scale import noted
from bequest.calibration.samples import CHUNK, Samples
from bequest.execution.copies import private_copy
from bequest.execution.devices import device_of
from bequest.execution.modes import in_plain_mode
from bequest.execution.precision import at_least_single, working_dtype
from bequest.execution.running import placed
from bequest.graph.inputs import mapped, normalise_inputs
from bequest.graph.trace import inputs_for
from bequest.measure.cost import cost_without_data

FEWEST, MOST = 256, 4096
"""Inputs that are looked at where nobody says how many."""

BUDGET = 4 * 10**9
"""Multiply-accumulates of a pass of all inputs up to which there are more than the fewest."""


class Source(config.Method, ABC):
    """Makes the inputs that layers are observed and refitted with; a frozen dataclass.

    Attributes:
        images: number of inputs; None = as many as :func:`affordable` says.
    """

    images: int | None = None

    @in_plain_mode
    def make(
        self, model: nn.Module, example_inputs: Any, seed: int, *, show: bool = False
    ) -> Samples:
        """The inputs, on the network's device, with a note where their scale is not its own.

        Args:
            model: the dense network; a copy of it is run.
            example_inputs: whose shapes and types they get.
            seed: of the draws.
            show: a progress bar on a terminal.

        Raises:
            UsageError: there can be no such inputs for this network.
        """
        model = private_copy(at_least_single(model))
        args, kwargs = inputs_for(model, example_inputs)
        example_inputs = mapped(kwargs or args, lambda one: one.to(working_dtype(one.dtype)))
        made = self._make(model, example_inputs, seed, show)
        self._check(made)
        return noted(made.placed_like(example_inputs, device_of(model)), model, example_inputs)

    def make_unasked(
        self, model: nn.Module, example_inputs: Any, seed: int, *, show: bool = False
    ) -> Samples:
        """As :meth:`make`, for a call that names no source: a better one may take its place."""
        return self.make(model, example_inputs, seed, show=show)

    def _check(self, made: Samples) -> None:
        """Raises ValueError or TypeError where a source makes other things than equal chunks."""
        whose = f"source of inputs '{self.name}'"
        if not isinstance(made, Samples):
            raise TypeError(f"{whose}: expected Samples, found {type(made).__name__}")
        shapes = {tuple(tuple(part.shape) for part in chunk) for chunk in made.chunks}
        if len(shapes) != 1 or not made.chunk_size:
            raise ValueError(f"{whose}: expected chunks of one size, found {sorted(shapes)}")
        for part in (part for chunk in made.chunks for part in chunk):
            if part.is_floating_point() and not bool(part.isfinite().all()):
                raise ValueError(f"{whose}: expected finite inputs, found NaN or infinite ones")

    @abstractmethod
    def _make(self, model: nn.Module, example_inputs: Any, seed: int, show: bool) -> Samples:
        """The inputs of a network in at least single precision that may be run as it is."""

    def within(self, value_range: Range) -> Source:
        """The same where inputs have a range, if it makes values up and none is said."""
        return self

    def to_json(self) -> dict[str, Any]:
        """What a plan says of the source beside its inputs, where the call named it."""
        return {"source": config.to_json(self)}


def affordable(each: int, times: float = 1) -> int:
    """How many inputs, in whole chunks, are looked at where nobody says it.

    Args:
        each: multiply-accumulates of an input.
        times: as many as by default, where that is less than :data:`MOST`.
    """
    chunks = -(-int(times * max(FEWEST, BUDGET // each)) // CHUNK)
    return min(MOST, chunks * CHUNK)


def macs_of_one(model: nn.Module, example_inputs: Any) -> int:
    """Multiply-accumulates of one input, at least 1."""
    args, kwargs = normalise_inputs(example_inputs)
    macs = cost_without_data(model, mapped(placed(kwargs or args, model), Tensor.clone)).macs
    return max(1, macs // Batching.of(example_inputs).size)

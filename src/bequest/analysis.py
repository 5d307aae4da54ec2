"""What pruning begins with: a network in its plain form, traced and grouped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from bequest.calibration.inputs.asked import samples_from
from bequest.calibration.inputs.given import require_known_tokens
from bequest.calibration.samples import Samples
from bequest.calibration.subject import Subject
from bequest.call import Call
from bequest.execution.copies import private_copy
from bequest.execution.devices import device_of
from bequest.execution.randomness import begin_at
from bequest.execution.reparametrised import as_stored
from bequest.graph.admission import admit
from bequest.graph.groups import Channels, group
from bequest.graph.results import counting
from bequest.graph.rules import read
from bequest.graph.trace import inputs_for, require_runnable, trace
from bequest.hypersphere.convert import as_plain
from bequest.surgery.folding import folded
from bequest.surgery.training import with_training


@dataclass(frozen=True)
class Plain:
    """A network whose parameters are what its layers multiply by.

    Attributes:
        model: the caller's; a copy where parameters were computed anew at every pass.
        notes: what was done to it.
    """

    model: nn.Module
    notes: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Plain:
        """The network in its plain form.

        Raises:
            ModelError: the model is refused by name.
        """
        model, stored = as_stored(model)
        admit(model)
        model, forgotten = as_plain(model)
        return cls(model, (*_of_computed(stored, ""), *forgotten))


@dataclass(frozen=True)
class Analysis:
    """A network that was read once, for as many prunings as nobody changes it between.

    Attributes:
        subject: the network, its groups, and the inputs that it is looked at with.
        notes: what was done to it.
    """

    subject: Subject
    notes: tuple[str, ...]

    @classmethod
    def of(cls, plain: Plain, example_inputs: Any, call: Call) -> Analysis:
        """Traces a copy of the network, on the inputs that it is looked at with if there are any.

        To be called inside of ``undisturbed``.

        Raises:
            UsageError: the inputs don't fit the network.
            ModelError: it can't be traced.
        """
        model, dense = plain.model, private_copy(plain.model)
        begin_at(call.seed, device_of(dense))
        args, kwargs = inputs_for(dense, example_inputs)
        example_inputs = kwargs or args
        samples = _samples(dense, example_inputs, call)
        inputs = example_inputs if samples is None else samples.shaped_like(example_inputs)
        channels = _grouped(dense, inputs, call)
        if samples is not None:
            require_known_tokens(samples, channels.reading.network)
        model, computed = folded(model, dense, inputs, channels)
        if computed:
            dense = private_copy(model)
            channels = _grouped(dense, inputs, call)
        channels = with_training(channels, dense, inputs)
        subject = Subject(model, dense, example_inputs, inputs, channels, samples)
        more = _of_computed(computed, ", by which it became a program")
        return cls(subject, (*plain.notes, *more))

    def anew(self) -> Analysis:
        """The same with a copy of the network that hasn't run yet: code may count its passes."""
        return replace(self, subject=replace(self.subject, dense=private_copy(self.subject.model)))


def _samples(dense: nn.Module, example_inputs: Any, call: Call) -> Samples | None:
    if not call.reads_inputs:
        return None
    require_runnable(dense, example_inputs)
    made_up = call.restorer.inputs()
    return samples_from(call.data, made_up, dense, example_inputs, call.seed, show=call.progress)


def _grouped(dense: nn.Module, inputs: Any, call: Call) -> Channels:
    return group(counting(read(trace(dense, inputs)), call.outputs))


def _of_computed(names: tuple[str, ...], more: str) -> tuple[str, ...]:
    """What is said of parameters that the network had computed from others."""
    if not names:
        return ()
    listed = ", ".join(f"'{name}'" for name in names)
    return (f"computed from other parameters before, now stored{more}: {listed}",)

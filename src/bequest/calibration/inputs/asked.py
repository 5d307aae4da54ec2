"""What ``data=`` of a call stands for: a source, inputs of an earlier call, or batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from torch import nn

from bequest import config
from bequest.calibration.inputs.base import Source
from bequest.calibration.inputs.given import Given
from bequest.calibration.samples import Samples
from bequest.errors import UnknownNameError, UsageError
from bequest.execution.devices import device_of

Data = Samples | Source | str | Iterable[Any] | None


def resolved(data: Data) -> Samples | Source | None:
    """A name becomes the source of that name; what is no source and no samples, batches.

    Raises:
        UsageError: no source has the name, or a class is given in place of an object.
    """
    if data is None or isinstance(data, Samples | Source):
        return data
    if isinstance(data, str) and data not in config.names("inputs"):
        raise UnknownNameError("source of inputs", data, config.names("inputs"))
    if isinstance(data, str) or (isinstance(data, type) and issubclass(data, Source)):
        source: Source = config.resolve("inputs", data, Source)
        return source
    return Given(data)


def samples_from(
    data: Data,
    otherwise: Source,
    model: nn.Module,
    example_inputs: Any,
    seed: int,
    *,
    show: bool = False,
) -> Samples:
    """The inputs that a call looks at.

    Args:
        data: as the call has it.
        otherwise: makes them where there is no data, and says how many batches give at most.
        model: the dense network; a copy of it is run.
        example_inputs: the network's example inputs.
        seed: of the draws.
        show: a progress bar on a terminal.

    Raises:
        UsageError: ``data`` is no such thing, or doesn't fit the network.
    """
    source = resolved(data)
    if isinstance(source, Samples):
        return source.placed_like(example_inputs, device_of(model))
    if isinstance(source, Given) and source.images is None:
        source = dataclasses.replace(source, images=otherwise.images)
    make = otherwise.make_unasked if source is None else source.make
    return make(model, example_inputs, seed, show=show)


def require_agreed(method: Any, made_up: Source, data: Samples | Source | None) -> None:
    """Refuses what a method says of made-up inputs where the call's data says otherwise.

    Args:
        method: a config object; what it says of inputs it passes on to its source.
        made_up: that source.
        data: the call's.

    Raises:
        UsageError: such a field is given beside real data that takes the place of it, or has
            another value in the call's source.
    """
    if not isinstance(data, Source) or not dataclasses.is_dataclass(method):
        return
    told = {
        field.name: getattr(method, field.name)
        for field in dataclasses.fields(method)
        if getattr(method, field.name) != field.default
        and getattr(made_up, field.name, field.default) == getattr(method, field.name)
    }
    own = type(method).__name__
    if isinstance(data, Given):
        idle = [name for name in told if name in ("source", "value_range")]
        if idle:
            raise UsageError(
                f"data: real inputs take the place of made-up ones, for which {' and '.join(idle)} "
                f"would be; leave that out of {own}(...), or leave data out"
            )
        return
    other = [f"{name}={told[name]!r}" for name in told if getattr(data, name, None) != told[name]]
    if other:
        raise UsageError(
            f"data: {data} makes the inputs, and {own}({', '.join(other)}) asks for others; "
            "say it in one of them, or leave data out"
        )

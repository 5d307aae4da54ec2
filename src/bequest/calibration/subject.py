"""The network that a call is about, as it was traced, and the inputs that it is looked at with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from bequest.calibration.inputs.base import macs_of_one
from bequest.calibration.inputs.batching import Batching
from bequest.calibration.samples import Samples
from bequest.graph.groups import Channels

HANDLED = 100
"""Multiply-accumulates in whose time a CPU reads and writes an element once, forwards and back:
what depthwise layers, norms and activations take."""


@dataclass(frozen=True)
class Subject:
    """A network, read but not changed.

    Attributes:
        model: the caller's model: copied, and never run.
        dense: a private copy that is run in its place.
        example_inputs: the caller's.
        inputs: what the copy was traced with: a chunk of the samples, where there are any.
        channels: its groups.
        samples: what layers are observed and refitted with; None where weights alone are read.
    """

    model: nn.Module
    dense: nn.Module
    example_inputs: Any
    inputs: Any
    channels: Channels
    samples: Samples | None

    @cached_property
    def work_of_one(self) -> int:
        """What an input takes forwards, in multiply-accumulates; :data:`HANDLED` per element."""
        written = (node.meta.get("val") for node in self.channels.reading.network.nodes)
        elements = sum(value.numel() for value in written if isinstance(value, Tensor))
        each = elements // Batching.of(self.inputs).size
        return macs_of_one(self.dense, self.inputs) + HANDLED * each

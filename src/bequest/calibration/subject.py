"""The network that a call is about, as it was traced, and the inputs that it is looked at with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from bequest.calibration.samples import Samples
from bequest.graph.groups import Channels


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

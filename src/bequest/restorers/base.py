"""What every restorer is: it makes the pruned network, and hands on what the channels knew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from torch import nn

from bequest.artifact.plan import GroupPlan
from bequest.calibration.inputs.base import Source
from bequest.calibration.inputs.synthetic import Synthetic
from bequest.calibration.subject import Subject
from bequest.config import Method
from bequest.errors import UsageError
from bequest.execution.caches import is_pretrained
from bequest.execution.copies import duplicate, own_memory, sharing_copy
from bequest.graph.trace import named_tensors
from bequest.surgery.cut import Chosen, Cut
from bequest.surgery.operation import Surgery


@dataclass(frozen=True)
class Attempt:
    """A network that is to lose channels.

    Attributes:
        subject: the dense network.
        chosen: who leaves.
        seed: of every draw.
        progress: whether progress bars are shown.
    """

    subject: Subject
    chosen: Sequence[Chosen]
    seed: int = 0
    progress: bool = False

    @cached_property
    def cut(self) -> Cut:
        """What follows from who leaves."""
        return Cut.of(self.subject.channels, self.chosen)

    def copy(self) -> nn.Module:
        """The caller's model, to be cut."""
        return duplicate(self.subject.model)

    def sharing_copy(self) -> nn.Module:
        """As :meth:`copy`, but its parameters are the caller's memory.

        They may be replaced, and must not be written to before :meth:`own` was called: so what is
        cut is never held whole.
        """
        return sharing_copy(self.subject.model)

    def own(self, pruned: nn.Module) -> None:
        """Gives what a :meth:`sharing_copy` still shares with the caller memory of its own."""
        own_memory(named_tensors(pruned), named_tensors(self.subject.model))


@dataclass(frozen=True)
class Restored:
    """The pruned copy of a model, the surgery that made it, and what happened to each group."""

    model: nn.Module
    surgery: Surgery
    groups: tuple[GroupPlan, ...]


class Restorer(Method, ABC):
    """Makes the pruned network of an attempt; a frozen dataclass of its parameters.

    Two kinds have a base of their own: :class:`~bequest.restorers.weight_space.WeightSpace`, which
    reads weights alone, and :class:`~bequest.restorers.by_walk.ByWalk`, which refits layer by layer
    what both networks see over inputs.
    """

    reads_inputs: ClassVar[bool] = False
    """Whether ``attempt.subject.samples`` are needed."""

    bias: str | None = None
    """Whether layers without a bias may be given one: "add" or "keep" (they stay as they are); None
    = "keep" for classes of transformers, whose configuration couldn't say it, else "add"."""

    def require_known_bias(self) -> None:
        """Raises UsageError where ``bias`` is none of these."""
        if self.bias not in (None, "add", "keep"):
            raise UsageError(
                f"{self.name}: expected bias 'add', 'keep' or None, found {self.bias!r}"
            )

    def adds_biases(self, model: nn.Module) -> bool:
        """Whether layers of the model that have no bias may be given one."""
        return not is_pretrained(model) if self.bias is None else self.bias == "add"

    def inputs(self) -> Source:
        """Where inputs come from if nobody gives any."""
        return Synthetic()

    def at(self, effort: str) -> Restorer:
        """The same with another effort.

        Raises:
            UsageError: it has but one.
        """
        raise UsageError(
            f"effort: '{self.name}' always takes the same; leave effort={effort!r} out, or take "
            "restorer='regression'"
        )

    @abstractmethod
    def restore(self, attempt: Attempt) -> Restored:
        """The network without the channels that leave, and what they left behind.

        Raises:
            ModelError: the outcome is not finite, or doesn't fit into the model's precision.
        """


def group_plan(
    one: Chosen, restored_by: str, error: float | None, notes: tuple[str, ...]
) -> GroupPlan:
    """What the plan says of a group, whoever restored it."""
    return GroupPlan(
        name=one.group.name,
        kind=one.group.kind,
        producers=one.group.layers,
        consumers=one.group.readers,
        size=one.group.size,
        removed=tuple(np.flatnonzero(~one.keep).tolist()),
        restored_by=restored_by,
        reconstruction_error=error,
        notes=(*one.notes, *notes),
        predicted_error=one.predicted_error,
    )

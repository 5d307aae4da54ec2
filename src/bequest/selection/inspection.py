"""inspect(): the groups of a network, what can't be pruned, and why; nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bequest.execution.copies import private_copy
from bequest.execution.reparametrised import as_stored
from bequest.graph.apart import apart
from bequest.graph.chains import bind
from bequest.graph.embedding import obstacle_to
from bequest.graph.groups import Channels, Group, group
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.selection.candidates import held_by_output
from bequest.surgery.folding import folded


@dataclass(frozen=True)
class GroupView:
    """A group of channels as a person reads it.

    Attributes:
        name: the group's first producer.
        kind: "inner", "residual" or "output".
        size: number of channels.
        rows: rows of its first producer that a channel stands for; of whole heads, the head's size.
        prunable: how many of them can leave.
        producers: the layers that write the channels.
        consumers: the layers that read them.
        obstacle: why weight-space restorers can't serve the group; None = they can.
        reasons: why channels can't leave; first, which of the network's results they are.
        literal: operators whose size may stand in the code; pruning tries them out.
    """

    name: str
    kind: str
    size: int
    rows: int
    prunable: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    obstacle: str | None
    reasons: tuple[str, ...]
    literal: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What pruning would find: the groups in order, and the operators without a rule."""

    groups: tuple[GroupView, ...]
    walls: tuple[str, ...]


def inspect(model: nn.Module, example_inputs: Any) -> Inspection:
    """Lists the groups of channels of a model.

    Args:
        model: any module that ``torch.export`` captures; it is not changed.
        example_inputs: a tensor, tuple or dict; only shape, dtype and device matter.

    Raises:
        UsageError: the inputs do not fit the model.
        ModelError: the model is refused by name or can't be exported.
    """
    model, _ = as_stored(model)
    channels = group(read(trace(model, example_inputs)))
    model, computed = folded(model, private_copy(model), example_inputs, channels)
    if computed:
        channels = group(read(trace(model, example_inputs)))
    tensors = named_tensors(model)
    views = tuple(
        GroupView(
            name=member.name,
            kind="output" if member.is_output else member.kind,
            size=member.size,
            rows=len(member.producers[0].labels) // len(member.parts[0]),
            prunable=0 if member.is_output else member.free,
            producers=member.layers,
            consumers=member.readers,
            obstacle=_obstacle(channels, member, tensors),
            reasons=(*_held(channels, member), *member.reasons),
            literal=member.literal,
        )
        for member in channels.groups
    )
    return Inspection(views, tuple(dict.fromkeys(channels.reading.walls)))


def _obstacle(channels: Channels, member: Group, tensors: Mapping[str, Tensor]) -> str | None:
    parts = apart(channels, member)
    chained = (one for one in parts if bind(channels, one, tensors).unit.obstacle)
    return next((found for one in chained if (found := obstacle_to(channels, one))), None)


def _held(channels: Channels, member: Group) -> list[str]:
    return [held_by_output(channels, member)] if member.is_output else []

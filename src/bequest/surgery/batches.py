"""Which constants of a trace follow the batch size: the network is traced with more samples.

A trace holds the batch size as a constant like any other. In a second trace the same nodes, their
twins, hold another number where they follow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bequest.graph.groups import Channels, group
from bequest.graph.inputs import mapped, normalise_inputs, tensors_of
from bequest.graph.rules import read
from bequest.graph.trace import Network, operator_of, trace_shapes
from bequest.graph.twins import VIEWS, kind, without_copies
from bequest.surgery.cut import Cut


def at_other_batches(
    model: nn.Module, example_inputs: Any, cut: Cut
) -> tuple[Cut, Mapping[fx.Node, fx.Node]] | None:
    """A trace's cut, and its nodes' twins in a trace of more samples.

    Of a single sample some networks skip operators; then two and three times as many are compared.

    Args:
        model: the dense model; only its code and shapes are read.
        example_inputs: what it was traced with.
        cut: who leaves.

    Returns:
        The cut, in the reading whose trace it is, and the twins of that trace's nodes.
        None where the model's code doesn't run at other batch sizes, does something else there, or
        has a constant that follows out of proportion.
    """
    once = cut.channels.reading.network
    try:
        two = trace_shapes(model, _repeated(example_inputs, 2))
        twins = _twins(once, two, 2)
        if twins is not None:
            return cut, twins
        twins = _twins(two, trace_shapes(model, _repeated(example_inputs, 3)), 3 / 2)
    except Exception:  # whatever the model's code says to another batch size
        return None
    if twins is None:
        return None
    carried = _carried(cut, group(read(two)))
    return None if carried is None else (carried, twins)


def _twins(few: Network, many: Network, times: float) -> dict[fx.Node, fx.Node] | None:
    """Node → the same node in a trace of so many times the samples; None where others run there."""
    here, _ = without_copies(few)
    there, _ = without_copies(many)
    if [kind(node) for node in here] != [kind(node) for node in there]:
        return None
    twins = dict(zip(here, there, strict=True))
    return twins if all(_in_proportion(*pair, times) for pair in twins.items()) else None


def _repeated(example_inputs: Any, times: int) -> Any:
    """The same inputs with several times as many samples."""
    args, kwargs = normalise_inputs(example_inputs)
    batch = next(value.shape[0] for value in tensors_of((args, kwargs)) if value.ndim)

    def repeat(value: Tensor) -> Tensor:
        counts = value.ndim > 0 and value.shape[0] == batch
        return torch.cat([value] * times) if counts else value

    return mapped(kwargs or args, repeat)


def _carried(cut: Cut, other: Channels) -> Cut | None:
    """The cut in another reading of the same network: the channels of the same weights leave.

    None where that reading has other channels, and would cut the weights in another way.
    """
    carried = Cut.of(other)
    slots = cut.channels.reading.ledger.slots.items()
    if any(slot not in other.reading.ledger.slots for slot, _ in slots):
        return None
    for slot, labels in slots:
        there = other.reading.ledger.slots[slot][cut.gone(labels)]
        carried.leaving[other.channel_of[there]] = True
    same = all(
        np.array_equal(cut.gone(labels), carried.gone(other.reading.ledger.slots[slot]))
        for slot, labels in slots
    )
    return carried if same else None


def _in_proportion(here: fx.Node, there: fx.Node, times: float) -> bool:
    """Whether every number of a node is the same for more samples, or as many times larger."""
    if operator_of(here) in (*VIEWS, "expand"):
        pairs: Iterable[Any] = zip(here.meta["val"].shape, there.meta["val"].shape, strict=True)
    else:
        pairs = zip(_numbers(here), _numbers(there), strict=False)
    return all(other in (one, times * one) for one, other in pairs)


def _numbers(node: fx.Node) -> list[float]:
    found: list[float] = []
    fx.node.map_aggregate(
        (node.args, node.kwargs),
        lambda value: found.append(value) if isinstance(value, int | float) else None,
    )
    return found

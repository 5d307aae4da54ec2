"""Which constants of a trace follow the batch size: the network is traced with more samples.

A trace holds the batch size as a constant like any other. In a second trace the same nodes, their
twins, hold another number where they follow it; in a third, of many samples, they follow still.
"""

from __future__ import annotations

from collections.abc import Mapping
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

MANY = 32
"""Samples that the largest trace has at least: groups of so few samples don't pass for all."""

UNWRITTEN = frozenset({"layout", "pin_memory", "output_size"})
"""Keywords that a program leaves out."""


def batch_size(network: Network) -> int:
    """That of the first input with dimensions."""
    inputs = (node.meta["val"] for node in network.nodes if node.name in network.inputs)
    sizes = (value.shape[0] for value in inputs if isinstance(value, Tensor) and value.ndim)
    return int(next(sizes, 1))


def at_other_batches(
    model: nn.Module, example_inputs: Any, cut: Cut
) -> tuple[Cut, Mapping[fx.Node, fx.Node]] | None:
    """A trace's cut, and its nodes' twins in a trace of more samples.

    Of a single sample some networks skip operators; then the trace is one of two.

    Args:
        model: the dense model; only its code and shapes are read.
        example_inputs: what it was traced with.
        cut: who leaves.

    Returns:
        The cut, in the reading whose trace it is, and the twins of that trace's nodes. Another cut
        than the one given is of two samples: that it holds for one has to be tried out.
        None where the model's code doesn't run at other batch sizes, does something else there, or
        has a number that follows the batch size otherwise than as a whole multiple.
    """
    once = cut.channels.reading.network
    batch = batch_size(once)
    try:
        two = trace_shapes(model, _repeated(example_inputs, 2))
        twins, few = _twins(once, two), once
        if twins is None and batch == 1:
            twins, few = _twins(two, trace_shapes(model, _repeated(example_inputs, 3))), two
        many = max(4, -(-MANY // batch))
        if not twins or not _twins(few, trace_shapes(model, _repeated(example_inputs, many))):
            return None
    except Exception:  # whatever the model's code says to another batch size
        return None
    if few is once:
        return cut, twins
    other = _carried(cut, group(read(two)))
    return None if other is None else (other, twins)


def _twins(few: Network, many: Network) -> dict[fx.Node, fx.Node] | None:
    """Node → the same node in a trace of more samples; None where that computes something else."""
    here, sources = without_copies(few)
    there, origins = without_copies(many)
    if [kind(node) for node in here] != [kind(node) for node in there]:
        return None
    if not _same_constants(few, many):
        return None
    twins = dict(zip(here, there, strict=True))
    sizes = batch_size(few), batch_size(many)
    for one, other in twins.items():
        reads = [twins[sources[operand]] for operand in _operands(one)]
        if reads != [origins[operand] for operand in _operands(other)]:
            return None
        if not _follow(one, other, *sizes):
            return None
    return twins


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


def _follow(here: fx.Node, there: fx.Node, few: int, many: int) -> bool:
    """Whether numbers are the same for more samples, or whole multiples of the batch size."""
    pairs = list(zip(_numbers(here), _numbers(there), strict=True))
    if operator_of(here) in (*VIEWS, "expand"):  # whose own sizes may be −1
        pairs += zip(here.meta["val"].shape, there.meta["val"].shape, strict=True)
    return all(
        type(one) is type(other) and (one == other or _multiples(one, other, few, many))
        for one, other in pairs
    )


def _multiples(one: Any, other: Any, few: int, many: int) -> bool:
    """Whether both are the same multiple of either batch size."""
    return type(one) is int and one > 0 and one % few == 0 and one // few * many == other


def _same_constants(few: Network, many: Network) -> bool:
    """Whether the tensors that the code makes have the same numbers."""
    held, others = few.constants.values(), many.constants.values()
    return len(held) == len(others) and all(
        one.is_meta == other.is_meta
        and one.shape == other.shape
        and (one.is_meta or torch.equal(one, other))
        for one, other in zip(held, others, strict=True)
    )


def _operands(node: fx.Node) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), found.append)
    return found


def _numbers(node: fx.Node) -> list[Any]:
    """Its numbers, flags and texts, in order."""
    found: list[Any] = []
    kwargs = {name: value for name, value in node.kwargs.items() if name not in UNWRITTEN}
    fx.node.map_aggregate(
        (node.args, kwargs),
        lambda value: found.append(value) if isinstance(value, int | float | str) else None,
    )
    return found

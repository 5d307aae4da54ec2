"""Tries a surgery out: the pruned network must run, every operator at its planned width."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from bequest.errors import BequestError
from bequest.graph.geometry import arguments
from bequest.graph.ledger import Layout
from bequest.graph.numbers import difference, same_operators
from bequest.graph.trace import Network, operator_of, place_of, run_shapes, trace_shapes
from bequest.graph.twins import kind, without_copies
from bequest.surgery import operation
from bequest.surgery.cut import Cut
from bequest.surgery.operation import Surgery


def mismatch(model: nn.Module, example_inputs: Any, cut: Cut, surgery: Surgery) -> str | None:
    """Tries ``surgery`` on a copy without data.

    Where no channel that leaves passes a view, slice or split, every operator on its way follows
    whatever width it meets, and a forward pass shows the rest: whether it runs, and with which
    numbers it computes. Elsewhere a size in the code might still fit by accident: then the network
    is traced again and compared operator by operator.

    Returns:
        None where the pruned network runs as the plan foresees; else what differs, in words.
    """
    reading = cut.channels.reading
    literals = [labels for labels, _ in reading.ledger.literals]
    change = partial(operation.apply, surgery=surgery)
    try:
        if not any(cut.gone(labels).any() for labels in literals):
            before = reading.network.calls
            after = run_shapes(model, example_inputs, change)
            if same_operators(before, after):
                return difference(before, after)
        return compare(cut, trace_shapes(model, example_inputs, change))
    except BequestError:
        raise
    except Exception as error:  # whatever the model's own code raises at other widths
        return " ".join(str(error).split())[:200]


def compare(cut: Cut, pruned: Network) -> str | None:
    """Operators, their operands and constants, and the shapes of their results.

    Args:
        cut: who leaves, by the groups of the dense network's trace.
        pruned: the pruned network's trace.

    Returns:
        None where that is what the plan foresees; else the first difference, in words.
    """
    dense, layouts = cut.channels.reading.network, cut.channels.reading.layouts
    kept, sources = without_copies(dense)
    left, origins = without_copies(pruned)
    if [kind(node) for node in kept] != [kind(node) for node in left]:
        return "the network runs other operators at other widths"
    if not _same_constants(dense, pruned):
        return "the network's code makes a tensor of other numbers at other widths"
    twins = dict(zip(kept, left, strict=True))
    for before, after in twins.items():
        if before.op != "call_function":
            continue
        rewritten = cut.literals(before)
        operands = fx.map_arg(_constants(before, rewritten), lambda one: twins[sources[one]])
        if operands != fx.map_arg(_constants(after, rewritten), lambda one: origins[one]):
            return f"{place_of(before)} has other constants at other widths"
        if operator_of(before) in _POSITIONS and rewritten and _stated(after) != rewritten:
            return f"{place_of(before)} takes other positions than planned"
        value = after.meta.get("val")
        if isinstance(layouts[before], Layout) and isinstance(value, Tensor):
            planned = tuple(cut.shape(before))
            if tuple(value.shape) != planned:
                return f"{place_of(before)} has the shape {tuple(value.shape)}, planned {planned}"
    return None


def _same_constants(dense: Network, pruned: Network) -> bool:
    """Whether the tensors that the code makes hold the same numbers; those of other shapes show."""
    pairs = zip(dense.constants.values(), pruned.constants.values(), strict=True)
    return all(
        one.shape != other.shape or one.is_meta or other.is_meta or torch.equal(one, other)
        for one, other in pairs
    )


_POSITIONS = frozenset({"slice", "slice_scatter", "roll"})
"""Operators at whose results' shapes one doesn't see which channels they took."""


def _stated(node: fx.Node) -> dict[int, Any]:
    """Which positions an operator takes, as :meth:`Cut.literals` has them."""
    given: Any = arguments(node)
    if operator_of(node) == "roll":
        return {1: list(given["shifts"])}
    shape = node.all_input_nodes[0].meta["val"].shape
    at = int(given["dim"]) % len(shape)
    start, stop, _ = slice(given["start"], given["end"]).indices(shape[at])
    first = 1 if operator_of(node) == "slice" else 2
    return {first: at, first + 1: start, first + 2: stop}


def _constants(node: fx.Node, rewritten: Mapping[int, Any]) -> tuple[Any, ...]:
    """All arguments but those that follow the widths."""
    return [a for position, a in enumerate(node.args) if position not in rewritten], node.kwargs

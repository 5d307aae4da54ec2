"""Tries a surgery out: the pruned network must run, every operator at its planned width."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from bequest.errors import BequestError
from bequest.graph import surgery as operation
from bequest.graph.groups import Channels
from bequest.graph.ledger import Layout
from bequest.graph.surgery import Surgery
from bequest.graph.trace import Network, place_of, run_shapes, trace_shapes


def mismatch(
    model: nn.Module,
    example_inputs: Any,
    channels: Channels,
    leaving: NDArray[np.bool_],
    surgery: Surgery,
) -> str | None:
    """Tries ``surgery`` on a copy without data.

    Where no channel that leaves passes a view, slice or split, every operator on its way follows
    whatever width it meets, and a forward pass shows the rest. Elsewhere a size in the code might
    still fit by accident: then the network is traced again and compared operator by operator.

    Returns:
        None where the pruned network runs as the plan foresees; else what differs, in words.
    """
    literals = [labels for labels, _ in channels.reading.ledger.literals]
    traced_again = any(leaving[channels.channel_of[labels]].any() for labels in literals)
    try:
        if traced_again:
            pruned = trace_shapes(model, example_inputs, partial(operation.apply, surgery=surgery))
            return _compare(channels, leaving, pruned)
        run_shapes(model, example_inputs, partial(operation.apply, surgery=surgery))
    except BequestError:
        raise
    except Exception as error:  # whatever the model's own code raises at other widths
        return " ".join(str(error).split())[:200]
    return None


def _compare(channels: Channels, leaving: NDArray[np.bool_], pruned: Network) -> str | None:
    dense = channels.reading.network.nodes
    if [str(node.target) for node in dense if node.op == "call_function"] != [
        str(node.target) for node in pruned.nodes if node.op == "call_function"
    ]:
        return "the network runs other operators at other widths"
    for before, after in zip(dense, pruned.nodes, strict=True):
        layout = channels.reading.layouts.get(before)
        value = after.meta.get("val")
        if not isinstance(layout, Layout) or not isinstance(value, Tensor):
            continue
        planned = _planned(channels, leaving, before, layout)
        if before.op == "call_function" and tuple(value.shape) != planned:
            return f"{place_of(before)} has the shape {tuple(value.shape)}, planned {planned}"
    return None


def _planned(
    channels: Channels, leaving: NDArray[np.bool_], node: fx.Node, layout: Layout
) -> tuple[int, ...]:
    """The node's shape without the labels that leave."""
    return tuple(
        size if labels is None else size - int(leaving[channels.channel_of[labels]].sum())
        for size, labels in zip(node.meta["val"].shape, layout.dims, strict=True)
    )

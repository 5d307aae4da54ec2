"""What a network returns, by name: ``logits``, ``hidden_states[2]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import fx
from torch.utils._pytree import TreeSpec

from bequest.graph.groups import Channels, Group


def returned_as(channels: Channels, group: Group) -> tuple[str, ...]:
    """Names of the results that hold channels of a group, in order.

    Empty where the network returns one tensor, and where its results have no names.
    """
    network = channels.reading.network
    spec = network.returns
    returned = network.output.args[0]
    if spec is None or spec.is_leaf() or not isinstance(returned, Sequence):
        return ()
    return tuple(
        path
        for path, node in zip(_paths(spec), returned, strict=False)
        if isinstance(node, fx.Node) and _holds(channels, node, group)
    )


def _holds(channels: Channels, node: fx.Node, group: Group) -> bool:
    layout = channels.reading.layouts[node]
    return any(
        np.isin(channels.channel_of[labels], group.channels).any()
        for one in (layout if isinstance(layout, tuple) else (layout,))
        for labels in one.dims
        if labels is not None
    )


def _paths(spec: TreeSpec, path: str = "") -> Iterator[str]:
    """Where each leaf is, as one would write it."""
    if spec.is_leaf():
        yield path
        return
    children = spec.children()
    for key, child in zip(_keys(spec, len(children)), children, strict=True):
        if isinstance(key, int):
            yield from _paths(child, f"{path}[{key}]")
        else:
            yield from _paths(child, f"{path}.{key}" if path else key)


def _keys(spec: TreeSpec, count: int) -> Sequence[str | int]:
    """Names of the fields of a mapping or named tuple, else numbers."""
    named = getattr(spec.context, "_fields", spec.context)
    if isinstance(named, list | tuple) and len(named) == count:
        keys = [key for key in named if isinstance(key, str)]
        if len(keys) == count:
            return keys
    return range(count)

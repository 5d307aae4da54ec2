"""What a network returns, by name: ``logits``, ``hidden_states[2]``, ``[0]`` of a tuple."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import fx
from torch.utils._pytree import TreeSpec

from bequest.errors import UsageError
from bequest.graph.groups import Channels, Group
from bequest.graph.ledger import Labels
from bequest.graph.reading import Reading
from bequest.graph.trace import Network

_SHOWN = 8


def counting(reading: Reading, outputs: Sequence[str] | None) -> Reading:
    """The reading, in which these results alone hold their channels.

    Args:
        reading: of a network; changed in place.
        outputs: names of results, or of what holds some: ``hidden_states`` stands for all in it;
            ``[0]`` is the first, whatever its name; None = all count.

    Raises:
        UsageError: the network returns nothing of such a name; the message lists what it returns.
    """
    if outputs is None:
        return reading
    found = _results(reading.network)
    if not found:
        raise UsageError("outputs: the network returns a single result, which counts; leave it out")
    names = [_by_name(reading.network, name) for name in outputs]
    for name in names:
        if not any(_is_in(path, name) for path, _ in found):
            paths = [path for path, _ in found]
            more = f" and {len(paths) - _SHOWN} more" * (len(paths) > _SHOWN)
            shown = ", ".join(map(repr, paths[:_SHOWN])) + more
            raise UsageError(f"outputs: expected results of the network ({shown}), found {name!r}")
    reading.ledger.outputs[:] = [
        labels
        for path, node in found
        if any(_is_in(path, name) for name in names)
        for labels in _labels(reading, node)
    ]
    return reading


def shrunk(
    channels: Channels, outputs: Sequence[str] | None, shape: Callable[[fx.Node], list[int]]
) -> Iterator[str]:
    """What is said of each result that doesn't count and has become narrower.

    Args:
        channels: the dense network's groups.
        outputs: names of the results that count; None = all do.
        shape: of a node's value after pruning.
    """
    for path, node in _results(channels.reading.network) if outputs is not None else ():
        before, after = tuple(node.meta["val"].shape), tuple(shape(node))
        if before != after:
            yield f"the result '{path}' is narrower, as it doesn't count: {before} → {after}"


def _results(network: Network) -> list[tuple[str, fx.Node]]:
    """Names of the results that are tensors; none where they have no names."""
    spec, returned = network.returns, network.output.args[0]
    if spec is None or spec.is_leaf() or not isinstance(returned, Sequence):
        return []
    pairs = zip(_paths(spec), returned, strict=False)
    return [(path, node) for path, node in pairs if isinstance(node, fx.Node)]


def _by_name(network: Network, name: str) -> str:
    """The name of a result that is asked for by its place among named ones."""
    place = name[1:-1]
    if network.returns is None or name != f"[{place}]" or not place.isdecimal():
        return name
    keys = _keys(network.returns, len(network.returns.children()))
    found = keys[int(place)] if int(place) < len(keys) else None
    return found if isinstance(found, str) else name


def _is_in(path: str, name: str) -> bool:
    """Whether a result is the named one, or lies in it."""
    return path == name or path.startswith((f"{name}[", f"{name}."))


def _labels(reading: Reading, node: fx.Node) -> Iterator[Labels]:
    layout = reading.layouts[node]
    for one in layout if isinstance(layout, tuple) else (layout,):
        yield from (labels for labels in one.dims if labels is not None)


def returned_as(channels: Channels, group: Group) -> tuple[str, ...]:
    """Names of the results that hold channels of a group, in order.

    Empty where the network returns one tensor, and where its results have no names.
    """
    return tuple(
        path
        for path, node in _results(channels.reading.network)
        if any(
            np.isin(channels.channel_of[labels], group.channels).any()
            for labels in _labels(channels.reading, node)
        )
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

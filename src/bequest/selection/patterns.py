"""Patterns of a ratio that ask nothing of any group, and why."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from torch import fx

from bequest.artifact.plan import Refusal
from bequest.graph.groups import Channels, Group
from bequest.graph.ledger import Layout
from bequest.graph.trace import module_of, place_of

_SHOWN = 3


def walled(channels: Channels) -> list[Refusal]:
    """Layers all of whose weights meet an operator without a rule, so that no group has them."""
    reading = channels.reading
    grouped = np.concatenate([one.channels for one in channels.groups] or [np.zeros(0, np.int64)])
    found: dict[str, Refusal] = {}
    for node in reading.network.nodes:
        name = reading.network.tensors.get(node.name)
        walls = [user for user in node.users if reading.roles.get(user) == "wall"]
        if name is None or not walls or node.meta["val"].ndim < 2:
            continue
        layout = reading.layouts[node]
        assert isinstance(layout, Layout)
        held = [channels.channel_of[labels] for labels in layout.dims if labels is not None]
        if any(np.isin(one, grouped).any() for one in held):
            continue
        owner = module_of(walls[0]) or name
        reason = f"meets an operator without a rule ({place_of(walls[0])})"
        found.setdefault(owner, Refusal(owner, node.meta["val"].shape[0], reason))
    return list(found.values())


@dataclass(frozen=True)
class Names:
    """Every name that a user may know a part of the network by.

    Attributes:
        layers: producers of groups.
        modules: module → the layer that writes the channels of its values; None = not known.
        tensors: parameters and buffers; True where an operator reads them.
    """

    layers: tuple[str, ...]
    modules: Mapping[str, str | None]
    tensors: Mapping[str, bool]

    @classmethod
    def of(cls, channels: Channels) -> Names:
        """Those of a network."""
        reading = channels.reading
        writer = {int(c): one.name for one in channels.groups for c in one.channels}
        modules: dict[str, str | None] = {}
        tensors: dict[str, bool] = {}

        def written_by(node: fx.Node) -> str | None:
            layout = reading.layouts.get(node)
            for one in layout if isinstance(layout, tuple) else (layout,):
                for labels in () if one is None else one.dims:
                    found = [] if labels is None else channels.channel_of[labels].tolist()
                    for channel in found:
                        if channel in writer:
                            return writer[channel]
            return None

        for node in reading.network.nodes:
            name = reading.network.tensors.get(node.name)
            if name is not None:
                tensors[name] = bool(node.users)
            module = module_of(node) if name is None else name.rpartition(".")[0]
            if module and modules.get(module) is None:
                modules[module] = written_by(node)
            while module := module.rpartition(".")[0]:
                modules.setdefault(module, None)
        layers = tuple(dict.fromkeys(name for one in channels.groups for name in one.layers))
        return cls(layers, modules, tensors)


def why_idle(pattern: str, channels: Channels, claimed: Mapping[str, str], names: Names) -> str:
    """What a pattern is that asks nothing of any group.

    Args:
        pattern: of a ratio.
        channels: the network's groups.
        claimed: group → the pattern that counts for it.
        names: what the network's parts are called.
    """
    for member in channels.groups:
        if any(fnmatchcase(name, pattern) for name in member.layers):
            return _shadowed(pattern, member, claimed[member.name])
    for module, writer in names.modules.items():
        if fnmatchcase(module, pattern):
            reasons = {one.group: one.reason for one in walled(channels)}
            return reasons.get(module) or _no_layer(module, writer, names)
    for tensor in names.tensors:
        if fnmatchcase(tensor, pattern):
            layer = tensor.rpartition(".")[0]
            return f"it matches the tensor '{tensor}': name the layer, '{layer}'"
    known = list(dict.fromkeys((*names.layers, *names.modules)))
    near = difflib.get_close_matches(pattern, known, _SHOWN)
    if near:
        return f"it matches no layer; did you mean {' or '.join(map(repr, near))}?"
    return "it matches no layer; bequest.inspect, or 'bequest inspect', lists them"


def _shadowed(pattern: str, member: Group, first: str) -> str:
    """Of two patterns for one group the first counts."""
    own = next(name for name in member.layers if fnmatchcase(name, pattern))
    other = next(name for name in member.layers if fnmatchcase(name, first))
    if own == other:
        return f"it is shadowed by '{first}', which comes first and matches '{own}', too"
    return (
        f"it is shadowed by '{first}', which comes first and matches '{other}', whose channels are "
        f"those of '{own}'"
    )


def _no_layer(module: str, writer: str | None, names: Names) -> str:
    """What a module is that writes no channels of its own."""
    inside = [name for name in names.layers if name.startswith(f"{module}.")]
    own = [used for name, used in names.tensors.items() if name.rpartition(".")[0] == module]
    if inside:
        return f"it matches the module '{module}', not the layers in it: write '{module}.*'"
    if own and not any(own):
        return f"it matches '{module}', which the network does not use in evaluation mode"
    if writer is not None:
        return f"it matches '{module}', which writes no channels of its own: name '{writer}'"
    return f"it matches '{module}', which writes no channels that can be followed"

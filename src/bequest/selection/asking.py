"""What a call asks of a network, and what is true of wishes that come to nothing."""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from torch import fx

from bequest.artifact.plan import GroupPlan, Refusal
from bequest.calibration.inputs import Source
from bequest.calibration.inputs.given import Given
from bequest.calibration.samples import Samples
from bequest.errors import NothingPrunedWarning, UsageError
from bequest.graph.groups import Channels, Group
from bequest.graph.ledger import Layout
from bequest.graph.results import returned_as
from bequest.graph.trace import module_of, place_of
from bequest.restorers.regression import Regression
from bequest.selection.choosing import Choice, Mask, Ratio, kept_count, ratio_of

_SHOWN = 3

NOTHING = "nothing was pruned"
"""How the message begins of a call that removed no channel."""


def asked_for(
    channels: Channels, ratio: Ratio
) -> tuple[list[tuple[Group, float, str | None]], list[Refusal]]:
    """Groups that a ratio asks to lose channels, with their shares and the patterns that said so.

    The refusals are of what is in no group: patterns that ask nothing of any, and, where everything
    is asked, layers whose operator has no rule. They say why.
    """
    asked = []
    claimed: dict[str, str] = {}
    for member in channels.groups:
        share, pattern = ratio_of(member, ratio)
        if pattern is not None:
            claimed[member.name] = pattern
        if share:
            asked.append((member, share, pattern))
    if not isinstance(ratio, Mapping):
        return asked, _walled(channels) if ratio else []
    patterns = ratio
    idle = [one for one in patterns if one not in claimed.values()]
    names = _Names.of(channels) if idle else None
    return asked, [Refusal(one, 0, _why_idle(one, channels, claimed, names)) for one in idle]


def is_classifier(channels: Channels, group: Group) -> bool:
    """Whether its channels are what the network says in the end, behind which no layer comes.

    That these stay is what everybody expects. A result that goes on into layers, too (a hidden
    state), is one that a user may not know of.
    """
    roles = channels.reading.roles
    pending = [user for write in group.producers for user in write.node.users]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if roles.get(node) == "layer":
            return False
        pending += [user for user in node.users if user not in seen]
        seen.update(node.users)
    return group.is_output


def held_by_output(channels: Channels, group: Group) -> str:
    """The reason why output channels stay, with the results' names where there are any."""
    names = [f"'{name}'" for name in returned_as(channels, group)]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN))
    return f"its channels are the network's output {shown}".rstrip()


def _walled(channels: Channels) -> list[Refusal]:
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
class _Names:
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
    def of(cls, channels: Channels) -> _Names:
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


def _why_idle(
    pattern: str, channels: Channels, claimed: Mapping[str, str], names: _Names | None
) -> str:
    assert names is not None
    for member in channels.groups:
        if any(fnmatchcase(name, pattern) for name in member.layers):
            return _shadowed(pattern, member, claimed[member.name])
    for module, writer in names.modules.items():
        if fnmatchcase(module, pattern):
            walled = {one.group: one.reason for one in _walled(channels)}
            return walled.get(module) or _no_layer(module, writer, names)
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


def _no_layer(module: str, writer: str | None, names: _Names) -> str:
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


def require_rivals(candidates: Sequence[tuple[Group, float]], ratio: Ratio | None) -> None:
    """Refuses to rank channels over groups where no two of them were asked to lose the same share.

    Raises:
        UsageError: each pattern of a ratio has a share and a group of its own.
    """
    shares = [share for _, share in candidates]
    if isinstance(ratio, Mapping) and shares and len(set(shares)) == len(shares):
        asked = ", ".join(f"'{group.name}' {share:g}" for group, share in candidates[:_SHOWN])
        raise UsageError(
            "scope: 'global' ranks the channels of groups with one and the same ratio against each "
            f"other, and here no two share one ({asked}); leave scope out"
        )


def require_used(method: object, data: Samples | Source | None) -> None:
    """Refuses what a regression says of made-up inputs where the call's data says otherwise.

    Raises:
        UsageError: ``source`` or ``value_range`` is given beside real data, or fields that the
            source of inputs has other values of.
    """
    if not isinstance(method, Regression) or not isinstance(data, Source):
        return
    told = {
        field.name: getattr(method, field.name)
        for field in dataclasses.fields(method)
        if getattr(method, field.name) != field.default and hasattr(method.inputs(), field.name)
    }
    if isinstance(data, Given):
        idle = [name for name in ("source", "value_range") if name in told]
        if idle:
            raise UsageError(
                f"data: real inputs take the place of made-up ones, for which {' and '.join(idle)} "
                "would be; leave that out of Regression(...), or leave data out"
            )
        return
    other = [f"{name}={told[name]!r}" for name in told if getattr(data, name, None) != told[name]]
    if other:
        raise UsageError(
            f"data: {data} makes the inputs, and Regression({', '.join(other)}) asks for others; "
            "say it in one of them, or leave data out"
        )


def left_whole(
    choices: Iterable[Choice], masks: Iterable[Mask], scope: str, round_to: int
) -> list[Refusal]:
    """Groups of which a share was asked that comes to no channel, and why."""
    found = []
    for choice, keep in zip(choices, masks, strict=True):
        if not choice.ratio or not keep.all():
            continue
        free = choice.group.free
        if scope == "group" and kept_count(free, choice.ratio, round_to) == free:
            reason = (
                f"{choice.ratio:g} of its {free} channels rounds to none at round_to={round_to}"
            )
            if kept_count(free, choice.ratio, 1) < free:
                reason += f"; round_to=1 takes {free - kept_count(free, choice.ratio, 1)}"
        elif scope == "global":
            reason = "its channels rank above those of other groups (scope 'global')"
        else:
            reason = "what can't leave it leaves nothing to take: blocks keep equal numbers"
        found.append(Refusal(choice.group.name, choice.group.size, reason))
    return found


def nothing_pruned(
    ratio: Ratio | None, groups: Sequence[GroupPlan], refused: Sequence[Refusal]
) -> str | None:
    """What to say where a call asked for pruning and no channel left; None where one did."""
    asked = max(ratio.values()) if isinstance(ratio, Mapping) else ratio
    if groups or asked == 0:
        return None
    reasons = [f"'{one.group}': {one.reason}" for one in refused[:_SHOWN]]
    if len(refused) > _SHOWN:
        reasons.append(f"and {len(refused) - _SHOWN} more in report.refused")
    return f"{NOTHING}: " + ("; ".join(reasons) or "no group of channels can lose any")


def warn_of_nothing(
    ratio: Ratio | None, groups: Sequence[GroupPlan], refused: Sequence[Refusal]
) -> tuple[str, ...]:
    """Warns the caller of the caller where nothing was pruned; the same as notes of a report."""
    idle = nothing_pruned(ratio, groups, refused)
    if idle is None:
        return ()
    warnings.warn(idle, NothingPrunedWarning, stacklevel=4)
    return (idle,)

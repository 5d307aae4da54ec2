"""Groups that a call asks to lose channels, and why others that it asks for can't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bequest.artifact.plan import Refusal
from bequest.errors import UsageError
from bequest.graph.groups import Channels, Group
from bequest.graph.results import returned_as
from bequest.selection.patterns import Names, walled, why_idle
from bequest.selection.policy import Policy
from bequest.selection.ratio import Ratio, ratio_of

_SHOWN = 3


def candidates(
    channels: Channels, policy: Policy
) -> tuple[list[tuple[Group, float]], list[Refusal]]:
    """Groups that the call asks for, and why others that it asks for can't lose channels."""
    found: list[tuple[Group, float]] = []
    refused: list[Refusal] = []
    asked, idle = asked_for(channels, policy.shares)
    for member, share, pattern in asked:
        reason = _reason_to_stay(channels, member, pattern, policy)
        if reason is None:
            found.append((member, share))
        elif pattern is not None or not is_classifier(channels, member):
            refused.append(Refusal(member.name, member.size, reason))
    return found, [*refused, *idle]


def _reason_to_stay(
    channels: Channels, member: Group, pattern: str | None, policy: Policy
) -> str | None:
    if member.free == 0:
        held = [held_by_output(channels, member)] if member.is_output else []
        return "; ".join((*member.reasons, *held))
    if member.is_output and not (pattern and pattern in member.layers):
        why = held_by_output(channels, member)
        others = ", or leave it out of outputs=[...]" if returned_as(channels, member) else ""
        return f"{why}; name the layer in full to prune it{others}"
    if member.kind == "residual" and policy.groups == "inner":
        return "it is a residual stream; ask for groups 'all'"
    if member.size == 1:
        return "it has a single channel"
    return None


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
        return asked, walled(channels) if ratio else []
    patterns = ratio
    idle = [one for one in patterns if one not in claimed.values()]
    if not idle:
        return asked, []
    names = Names.of(channels)
    return asked, [Refusal(one, 0, why_idle(one, channels, claimed, names)) for one in idle]


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

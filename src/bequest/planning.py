"""Which groups lose which channels: who is asked for, who can't, and what the network bears."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bequest import config, criteria, restorers
from bequest.artifact.plan import Form, Refusal
from bequest.criteria.base import Criterion, Unscorable
from bequest.errors import UsageError
from bequest.graph.chains import bind
from bequest.graph.cuts import plan_surgery
from bequest.graph.emission import NotEmittable, check_emittable
from bequest.graph.groups import Channels, Group
from bequest.graph.trace import named_tensors
from bequest.graph.verify import mismatch
from bequest.measure.progress import tracked
from bequest.restorers.base import Restorer
from bequest.restorers.regression import Regression
from bequest.selection import Choice, Mask, Ratio, Scope, check_ratio, choose, ratio_of

Kinds = Literal["inner", "all"]
_MOST_TRIES = 32  # each may trace the network anew
_METHODS = criteria, restorers  # importing them fills the registry of names


@dataclass(frozen=True)
class Wish:
    """The checked arguments of a call."""

    ratio: Ratio
    groups: Kinds
    criterion: Criterion
    scope: Scope
    restorer: Restorer | Regression
    round_to: int
    seed: int
    progress: bool

    @classmethod
    def checked(cls, **arguments: Any) -> Wish:
        """Checks the arguments of :func:`bequest.prune` and resolves names to config objects.

        Raises:
            UsageError: one of them is wrong.
        """
        return cls(
            ratio=check_ratio(arguments["ratio"]),
            groups=_one_of("groups", arguments["groups"], ("inner", "all")),
            criterion=config.resolve("criterion", arguments["criterion"], Criterion),
            scope=_one_of("scope", arguments["scope"], ("group", "global")),
            restorer=config.resolve("restorer", arguments["restorer"], (Restorer, Regression)),
            round_to=_check_whole("round_to", arguments["round_to"], least=1),
            seed=_check_whole("seed", arguments["seed"], least=0),
            progress=bool(arguments["progress"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The recipe as plan.json holds it."""
        return {
            "ratio": dict(self.ratio) if isinstance(self.ratio, Mapping) else self.ratio,
            "groups": self.groups,
            "criterion": config.to_json(self.criterion),
            "scope": self.scope,
            "restorer": config.to_json(self.restorer),
            "round_to": self.round_to,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Chosen:
    """A group that loses channels, and which stay."""

    group: Group
    keep: Mask
    notes: tuple[str, ...]


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{name}: expected one of {', '.join(allowed)}; found {value!r}")
    return value


def _check_whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    return value


def select(
    model: nn.Module,
    example_inputs: Any,
    channels: Channels,
    wish: Wish,
) -> tuple[list[Chosen], tuple[Refusal, ...], Form]:
    """Who leaves, why others stay, and whether the model's own code can hold what is left.

    Where it can't, as sizes stand in it, the pruned network becomes a program; where it can't be
    written down as one either, the groups concerned are refused.
    """
    tensors = named_tensors(model)
    candidates, refused = _candidates(channels, wish)
    choices: list[Choice] = []
    for member, share in tracked(candidates, "ranking channels", candidates, wish.progress):
        try:
            scores = _scores(channels, member, tensors, wish)
        except Unscorable as finding:
            refused.append(Refusal(member.name, member.size, str(finding)))
            continue
        choices.append(Choice(member, share, scores))
    chosen = _chosen(choices, wish)
    problem = _try_out(model, example_inputs, channels, chosen)
    form: Form = "module"
    if problem is not None:
        try:
            check_emittable(channels)
            form = "program"
        except NotEmittable as reason:
            chosen, written = _without_misfits(model, example_inputs, channels, chosen, reason)
            refused.extend(written)
    return chosen, tuple(refused), form


def _scores(
    channels: Channels, member: Group, tensors: Mapping[str, Tensor], wish: Wish
) -> NDArray[np.float64]:
    """One group's scores; its float64 weights are gone when the next group is read."""
    unit = bind(channels, member, tensors).unit
    if not unit.producers:
        raise Unscorable(wish.criterion.name, unit.name, "its weights are computed")
    scores: NDArray[np.float64] = wish.criterion.score(unit, wish.seed).cpu().numpy()
    return scores


def _candidates(channels: Channels, wish: Wish) -> tuple[list[tuple[Group, float]], list[Refusal]]:
    """Groups that the call asks for, and why others that it asks for can't lose channels."""
    candidates: list[tuple[Group, float]] = []
    refused: list[Refusal] = []
    unused = set(wish.ratio) if isinstance(wish.ratio, Mapping) else set()
    for member in channels.groups:
        share, pattern = ratio_of(member, wish.ratio)
        unused.discard(str(pattern))
        if not share:
            continue
        reason = _reason_to_stay(member, pattern, wish)
        if reason is None:
            candidates.append((member, share))
        elif not (member.is_output and pattern is None):
            refused.append(Refusal(member.name, member.size, reason))
    refused.extend(Refusal(p, 0, "the pattern matches no layer") for p in sorted(unused))
    return candidates, refused


def _reason_to_stay(member: Group, pattern: str | None, wish: Wish) -> str | None:
    if member.free == 0:
        return "; ".join(member.reasons)
    if member.is_output and not (pattern and pattern in member.layers):
        return "its channels are the network's output; name the layer in full to prune it"
    if member.kind == "residual" and wish.groups == "inner":
        return "it is a residual stream; ask for groups 'all'"
    if member.size == 1:
        return "it has a single channel"
    return None


def _chosen(choices: list[Choice], wish: Wish) -> list[Chosen]:
    chosen = []
    for choice, keep in zip(choices, choose(choices, wish.scope, wish.round_to), strict=True):
        notes = []
        if choice.group.fixed.any():
            number, why = int(choice.group.fixed.sum()), "; ".join(choice.group.reasons)
            notes.append(f"{number} channels can't leave: {why}")
        if choice.group.blocks is not None:
            number = int(choice.group.blocks.max()) + 1
            notes.append(f"{number} blocks keep equal numbers of channels")
        chosen.append(Chosen(choice.group, keep, tuple(notes)))
    return [one for one in chosen if not one.keep.all()]


def leaving_channels(channels: Channels, chosen: Iterable[Chosen]) -> Mask:
    """For every channel id whether it leaves."""
    leaving = np.zeros(int(channels.channel_of.max(initial=0)) + 1, bool)
    for one in chosen:
        leaving[one.group.channels[~one.keep]] = True
    return leaving


def _try_out(
    model: nn.Module, example_inputs: Any, channels: Channels, chosen: list[Chosen]
) -> str | None:
    leaving = leaving_channels(channels, chosen)
    surgery = plan_surgery(channels, leaving, model)
    return mismatch(model, example_inputs, channels, leaving, surgery)


def _without_misfits(
    model: nn.Module,
    example_inputs: Any,
    channels: Channels,
    chosen: list[Chosen],
    no_program: NotEmittable,
) -> tuple[list[Chosen], list[Refusal]]:
    """Tries halves of the groups, and halves of those; what the code does not bear is refused."""
    refused: list[Refusal] = []
    sound: list[Chosen] = []
    pending = [chosen]
    for _ in range(_MOST_TRIES):
        if not pending:
            break
        some = pending.pop()
        found = _try_out(model, example_inputs, channels, [*sound, *some])
        if found is None:
            sound += some
        elif len(some) > 1:
            pending += [some[len(some) // 2 :], some[: len(some) // 2]]
        else:
            refused.append(_misfit(some[0].group, f"{found}; {no_program}"))
    untried = f"not tried, as {_MOST_TRIES} others were; prune fewer layers at a time"
    refused += [_misfit(one.group, untried) for some in pending for one in some]
    return sound, refused


def _misfit(group: Group, found: str) -> Refusal:
    where = ", ".join(group.literal)
    constant = f"its width is a constant in the code ({where})"
    reason = constant if where else "the model's code does not run at another width"
    return Refusal(group.name, group.size, f"{reason}: {found}")

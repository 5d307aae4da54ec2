"""Which groups lose which channels: who is asked for, who can't, and what the network bears."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from numbers import Integral
from time import monotonic
from typing import Any, Literal

from torch import nn

from bequest import config, criteria, restorers
from bequest.artifact.plan import Form, Refusal
from bequest.calibration.samples import Samples
from bequest.criteria.base import Criterion
from bequest.errors import ModelError, UsageError
from bequest.execution.precision import at_least_single
from bequest.execution.randomness import check_seed
from bequest.graph.groups import Channels, Group
from bequest.graph.trace import run_shapes
from bequest.restorers.base import Restorer
from bequest.restorers.regression import Regression
from bequest.selection.allocation import Target
from bequest.selection.asking import (
    asked_for,
    held_by_output,
    is_classifier,
    left_whole,
    require_rivals,
)
from bequest.selection.choosing import Choice, Ratio, Scope, check_ratio, choose
from bequest.selection.ranking import rank, rank_observed
from bequest.surgery import operation
from bequest.surgery.cut import Chosen, Cut
from bequest.surgery.cuts import plan_surgery
from bequest.surgery.emission import NotEmittable, check_emittable
from bequest.surgery.verify import mismatch

Kinds = Literal["inner", "all"]
DEFAULT_RATIO = 0.5
_PATIENCE = 60.0  # seconds of looking for the groups that the code does not bear
_METHODS = criteria, restorers  # importing them fills the registry of names


@dataclass(frozen=True)
class Wish:
    """The checked arguments of a call; ``ratio`` is None where a ``target`` decides."""

    ratio: Ratio | None
    target: Target | None
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
        ratio, target = arguments["ratio"], arguments["target"]
        if ratio is not None and target is not None:
            raise UsageError("expected a ratio or a target, found both; leave one out")
        if target is None:
            ratio = check_ratio(DEFAULT_RATIO if ratio is None else ratio)
        elif arguments["scope"] != "group":
            raise UsageError("target: it ranks groups against each other itself; leave scope out")
        return cls(
            ratio=ratio,
            target=None if target is None else Target.parse(target),
            groups=_one_of("groups", arguments["groups"], ("inner", "all")),
            criterion=config.resolve("criterion", arguments["criterion"], Criterion),
            scope=_one_of("scope", arguments["scope"], ("group", "global")),
            restorer=config.resolve("restorer", arguments["restorer"], (Restorer, Regression)),
            round_to=_check_whole("round_to", arguments["round_to"], least=1),
            seed=check_seed(arguments["seed"]),
            progress=bool(arguments["progress"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The recipe as plan.json holds it."""
        return {
            "ratio": dict(self.ratio) if isinstance(self.ratio, Mapping) else self.ratio,
            "target": None if self.target is None else str(self.target),
            "groups": self.groups,
            "criterion": config.to_json(self.criterion),
            "scope": self.scope,
            "restorer": config.to_json(self.restorer),
            "round_to": self.round_to,
            "seed": self.seed,
        }

    @property
    def shares(self) -> Ratio:
        """The ratio; where a target decides, the one that groups are tried out at."""
        return DEFAULT_RATIO if self.ratio is None else self.ratio

    @property
    def observes(self) -> bool:
        """Whether it must be known what layers see, to rank channels or groups."""
        allocates = self.target is not None and self.target.kind != "latency"
        return self.criterion.observes or allocates

    @property
    def needs_inputs(self) -> bool:
        """Whether the network is run over inputs: to know what layers see, or to refit them."""
        return self.observes or isinstance(self.restorer, Regression)


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{name}: expected one of {', '.join(allowed)}; found {value!r}")
    return value


def _check_whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise UsageError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    return int(value)


def select(
    model: nn.Module,
    example_inputs: Any,
    channels: Channels,
    wish: Wish,
    samples: Samples | None,
) -> tuple[list[Choice], tuple[Refusal, ...], Form]:
    """Who could leave, why others stay, and whether the model's own code can hold what is left.

    Where it can't, as sizes stand in it, the pruned network becomes a program; where it can't be
    written down as one either, the groups concerned are refused.

    Args:
        model: the dense model.
        example_inputs: what it was traced with.
        channels: its groups.
        wish: the checked call.
        samples: what layers are observed with; None where nothing asks for it.
    """
    candidates, refused = _candidates(channels, wish)
    if wish.scope == "global":
        require_rivals(candidates, wish.ratio)
    if wish.observes:
        assert samples is not None
        choices, unscored = rank_observed(
            channels,
            candidates,
            at_least_single(model),
            wish.criterion,
            samples,
            seed=wish.seed,
            progress=wish.progress,
        )
    else:
        choices, unscored = rank(
            channels, candidates, model, wish.criterion, seed=wish.seed, progress=wish.progress
        )
    refused.extend(unscored)
    if wish.target is None:
        masks = choose(choices, wish.scope, wish.round_to)
        refused.extend(left_whole(choices, masks, wish.scope, wish.round_to))
    chosen = chosen_from(choices, wish)
    problem = try_out(model, example_inputs, channels, chosen)
    form: Form = "module"
    if problem is not None:
        try:
            check_emittable(model, example_inputs, channels)
            form = "program"
        except NotEmittable as reason:
            _, written = _without_misfits(model, example_inputs, channels, chosen, reason)
            refused.extend(written)
            misfits = {one.group for one in written}
            choices = [choice for choice in choices if choice.group.name not in misfits]
    return choices, tuple(refused), form


def _candidates(channels: Channels, wish: Wish) -> tuple[list[tuple[Group, float]], list[Refusal]]:
    """Groups that the call asks for, and why others that it asks for can't lose channels."""
    candidates: list[tuple[Group, float]] = []
    refused: list[Refusal] = []
    asked, idle = asked_for(channels, wish.shares)
    for member, share, pattern in asked:
        reason = _reason_to_stay(channels, member, pattern, wish)
        if reason is None:
            candidates.append((member, share))
        elif pattern is not None or not is_classifier(channels, member):
            refused.append(Refusal(member.name, member.size, reason))
    return candidates, [*refused, *idle]


def _reason_to_stay(
    channels: Channels, member: Group, pattern: str | None, wish: Wish
) -> str | None:
    if member.free == 0:
        held = [held_by_output(channels, member)] if member.is_output else []
        return "; ".join((*member.reasons, *held))
    if member.is_output and not (pattern and pattern in member.layers):
        return f"{held_by_output(channels, member)}; name the layer in full to prune it"
    if member.kind == "residual" and wish.groups == "inner":
        return "it is a residual stream; ask for groups 'all'"
    if member.size == 1:
        return "it has a single channel"
    return None


def chosen_from(choices: Sequence[Choice], wish: Wish) -> list[Chosen]:
    """Which channels stay of every group that loses any."""
    chosen = []
    for choice, keep in zip(choices, choose(choices, wish.scope, wish.round_to), strict=True):
        notes = []
        if choice.group.fixed.any():
            number, why = int(choice.group.fixed.sum()), "; ".join(choice.group.reasons)
            notes.append(f"{number} channels can't leave: {why}")
        if choice.group.blocks is not None:
            number = int(choice.group.blocks.max()) + 1
            notes.append(f"{number} blocks keep equal numbers of channels")
        if choice.group.normalised:
            places = ", ".join(choice.group.normalised)
            notes.append(
                f"normalised over its channels ({places}): the statistics are those of the "
                "channels that stay"
            )
        lost = int((~keep).sum())
        predicted = None
        if choice.losses is not None and lost:
            predicted = float(choice.losses[lost - 1]) ** 0.5  # of variances, as errors are
        chosen.append(Chosen(choice.group, keep, tuple(notes), predicted))
    return [one for one in chosen if not one.keep.all()]


def require_sound(
    model: nn.Module, example_inputs: Any, channels: Channels, chosen: list[Chosen]
) -> None:
    """Checks that the network runs without the channels that were chosen in the end.

    Raises:
        ModelError: it doesn't.
    """
    problem = try_out(model, example_inputs, channels, chosen)
    if problem is not None:
        raise ModelError(f"the pruned network would not run as planned: {problem}")


def try_out(
    model: nn.Module, example_inputs: Any, channels: Channels, chosen: list[Chosen]
) -> str | None:
    """What keeps the network from running without the chosen channels; None where it runs."""
    cut = Cut.of(channels, chosen)
    return mismatch(model, example_inputs, cut, plan_surgery(cut, model))


def _without_misfits(
    model: nn.Module,
    example_inputs: Any,
    channels: Channels,
    chosen: list[Chosen],
    no_program: NotEmittable,
) -> tuple[list[Chosen], list[Refusal]]:
    """The groups that the code bears, and why others are refused.

    Most of what doesn't fit shows in a pass without data; only what passes there is traced. Groups
    that meet no size in the code come first: they are hardly ever to blame.
    """
    literal = [one for one in chosen if one.group.literal]
    plain = [one for one in chosen if not one.group.literal]
    deadline = monotonic() + _PATIENCE

    def passes(some: list[Chosen]) -> str | None:
        surgery = plan_surgery(Cut.of(channels, some), model)
        try:
            run_shapes(model, example_inputs, partial(operation.apply, surgery=surgery))
        except Exception as error:  # whatever the model's own code raises at other widths
            return " ".join(str(error).split())[:200]
        return None

    def computes(some: list[Chosen]) -> str | None:
        return try_out(model, example_inputs, channels, some)

    running, misfits = narrowed([plain, literal], passes, deadline)
    sound, more = narrowed([running], computes, deadline)
    refused = [_misfit(one.group, f"{found}; {no_program}") for one, found in (*misfits, *more)]
    return sound, refused


def narrowed(
    parts: Iterable[list[Chosen]],
    problem: Callable[[list[Chosen]], str | None],
    deadline: float = inf,
) -> tuple[list[Chosen], list[tuple[Chosen, str]]]:
    """Groups without a problem together, and the others with theirs.

    Of a part with a problem both halves are tried, and halves of those; after the deadline it is
    left out as a whole.
    """
    sound: list[Chosen] = []
    misfits: list[tuple[Chosen, str]] = []
    pending = [part for part in parts if part]
    while pending:
        some = pending.pop(0)
        found = problem([*sound, *some])
        if found is None:
            sound += some
        elif len(some) > 1 and monotonic() < deadline:
            pending[:0] = [some[: len(some) // 2], some[len(some) // 2 :]]
        else:
            misfits += [(one, found) for one in some]
    return sound, misfits


def _misfit(group: Group, found: str) -> Refusal:
    where = ", ".join(group.literal)
    constant = f"its width is a constant in the code ({where})"
    reason = constant if where else "the model's code does not run at another width"
    return Refusal(group.name, group.size, f"{reason}: {found}")

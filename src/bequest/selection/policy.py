"""What decides who leaves: the part of a call that a selection reads."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from bequest import config
from bequest.criteria.base import Criterion
from bequest.errors import UsageError
from bequest.execution.randomness import check_seed
from bequest.selection.ratio import Ratio, check_ratio
from bequest.selection.targets.base import Target, parse
from bequest.selection.widths import Scope

Kinds = Literal["inner", "all"]
DEFAULT_RATIO = 0.5


@dataclass(frozen=True)
class Policy:
    """The checked arguments by which channels are chosen.

    Attributes:
        ratio: what groups lose; None where a ``target`` decides.
        target: what the whole network is to reach, or None.
        groups: which groups take part.
        criterion: ranks their channels.
        scope: within a group, or over all.
        round_to: widths become multiples of it.
        uniform: layers of a kind keep equal widths, which a configuration of their class can say.
        seed: of every draw.
        progress: whether progress bars are shown.
    """

    ratio: Ratio | None
    target: Target | None
    groups: Kinds
    criterion: Criterion
    scope: Scope
    round_to: int
    uniform: bool
    seed: int
    progress: bool

    @property
    def shares(self) -> Ratio:
        """The ratio; where a target decides, the one that groups are tried out at."""
        return DEFAULT_RATIO if self.ratio is None else self.ratio

    @property
    def observes(self) -> bool:
        """Whether it must be known what layers see, to rank channels or groups."""
        return self.criterion.observes or (self.target is not None and self.target.observes)


def checked(
    *,
    ratio: Any,
    target: Any,
    groups: Any,
    criterion: Any,
    scope: Any,
    round_to: Any,
    seed: Any,
    progress: Any,
    uniform: Any = False,
) -> dict[str, Any]:
    """The fields of a :class:`Policy`, checked, with names resolved to config objects.

    Raises:
        UsageError: one of them is wrong.
    """
    if ratio is not None and target is not None:
        raise UsageError("expected a ratio or a target, found both; leave one out")
    if target is None:
        ratio = check_ratio(DEFAULT_RATIO if ratio is None else ratio)
    elif scope != "group":
        raise UsageError("target: it ranks groups against each other itself; leave scope out")
    if not isinstance(uniform, bool):
        raise UsageError(f"uniform: expected True or False, found {uniform!r}")
    if uniform and scope != "group":
        raise UsageError("uniform: scope 'global' gives layers widths of their own; leave it out")
    return {
        "ratio": ratio,
        "target": None if target is None else parse(target),
        "groups": _one_of("groups", groups, ("inner", "all")),
        "criterion": None
        if criterion is None
        else config.resolve("criterion", criterion, Criterion),
        "scope": _one_of("scope", scope, ("group", "global")),
        "round_to": _whole("round_to", round_to, least=1),
        "uniform": uniform,
        "seed": check_seed(seed),
        "progress": bool(progress),
    }


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{name}: expected one of {', '.join(allowed)}; found {value!r}")
    return value


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise UsageError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    return int(value)

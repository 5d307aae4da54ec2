"""What every target is: it finds the ratios by which the whole network meets it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bequest import config
from bequest.calibration.subject import Subject
from bequest.errors import UsageError
from bequest.restorers.restoration import Restoration
from bequest.selection.widths import Bundle, Choice, chosen_from
from bequest.surgery.cut import Chosen


@dataclass(frozen=True)
class Search:
    """What a search for ratios goes over.

    Attributes:
        choices: groups with their scores and, where the target observes, predicted losses.
        restoration: cuts and restores the network.
        round_to: widths become multiples of it.
        bundles: choices that lose equally many channels; None = each loses its own number.
    """

    choices: Sequence[Choice]
    restoration: Restoration
    round_to: int
    bundles: Sequence[Bundle] | None = None

    @property
    def subject(self) -> Subject:
        """The network."""
        return self.restoration.subject

    def chosen(self, choices: Sequence[Choice]) -> list[Chosen]:
        """Which channels stay at the ratios of the choices."""
        return chosen_from(choices, "group", self.round_to)


@dataclass(frozen=True)
class Met:
    """The outcome of a search.

    Attributes:
        choices: with the ratios by which the target is met.
        recipe: what plan.json is to say of it.
    """

    choices: Sequence[Choice]
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target(config.Method, ABC):
    """What the pruned network as a whole is to reach; "NAME:VALUE" in a call.

    Attributes:
        value: in (0, 1).
    """

    observes: ClassVar[bool] = True
    """Whether choices are to predict what each channel's loss costs."""

    value: float

    def __post_init__(self) -> None:
        if not isinstance(self.value, int | float) or not 0 < self.value < 1:
            raise _wrong(f"{self.name}:{self.value}")

    @abstractmethod
    def meet(self, search: Search) -> Met:
        """The choices with the ratios by which the target is met.

        Raises:
            UsageError: it can't be met; the message says what can.
        """

    def __str__(self) -> str:
        return f"{self.name}:{self.value:g}"


def parse(text: Any) -> Target:
    """Reads "macs:0.5" and the like; a target passes through.

    Raises:
        UsageError: it is of another form.
    """
    if isinstance(text, Target):
        return text
    kind, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not colon or kind not in config.names("target"):
        raise _wrong(text)
    share, at, runtime = rest.partition("@")
    try:
        target: Target = config.named("target", kind)(float(share), *([runtime] if at else []))
    except (ValueError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise _wrong(text) from error
    return target


def _wrong(found: Any) -> UsageError:
    names = ", ".join(config.names("target"))
    return UsageError(
        f"target: expected KIND:SHARE with KIND one of {names} and SHARE in (0, 1), such as "
        f"'macs:0.5', or 'latency:0.5@onnx' as another runtime measures it; found {found!r}"
    )


def met(target: Target, search: Search) -> Met:
    """The target met.

    Raises:
        UsageError: it can't be met.
    """
    if not search.choices:
        raise UsageError(f"target {target}: no group of this network can lose channels")
    found = target.meet(search)
    _check(target, search, found)
    return found


def _check(target: Target, search: Search, found: Met) -> None:
    """Raises ValueError or TypeError where a target gives other things than ratios of choices."""
    whose = f"target '{target.name}'"
    if not isinstance(found, Met):
        raise TypeError(f"{whose}: expected a Met, found {type(found).__name__}")
    asked, given = ([one.group.name for one in each.choices] for each in (search, found))
    if sorted(asked) != sorted(given):
        raise ValueError(f"{whose}: expected each of the choices {asked} once, found {given}")
    for one in found.choices:
        if not 0 <= one.ratio < 1:
            raise ValueError(
                f"{whose}: expected ratios in [0, 1), found {one.ratio} for '{one.group.name}'"
            )

"""How many channels each group keeps, and which."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bequest.errors import UsageError
from bequest.graph.groups import Group

Ratio = float | Mapping[str, float]
Scope = Literal["group", "global"]
Mask = NDArray[np.bool_]
_SLACK = 1e-6  # a product such as 10·(1 − 0.7) must not fall just short of an integer


@dataclass(frozen=True)
class Choice:
    """A group with the ratio that it is to lose and the score of every channel.

    ``losses`` predicts the error behind the group, relative to the variance there, after the k
    channels with the lowest scores have left and the others have taken over, k = 1..n; None where
    nobody asked.
    """

    group: Group
    ratio: float
    scores: NDArray[np.float64]
    losses: NDArray[np.float64] | None = None


def check_ratio(ratio: Any) -> Ratio:
    """A number in [0, 1), or shell patterns on producers' names → such numbers.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(ratio, Mapping):
        if not ratio:
            raise UsageError("ratio: expected at least one pattern, found an empty dict")
        return {
            str(pattern): _check_number(value, f" of '{pattern}'")
            for pattern, value in ratio.items()
        }
    return _check_number(ratio, "")


def _check_number(value: Any, whose: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise UsageError(f"ratio{whose}: expected a number in [0, 1), found {value!r}")
    if not 0 <= value < 1:
        raise UsageError(
            f"ratio{whose}: expected a number in [0, 1), found {value}; 0 keeps every channel, and "
            "a layer can't lose all of its channels"
        )
    return float(value)


def ratio_of(group: Group, ratio: Ratio) -> tuple[float | None, str | None]:
    """The ratio asked of a group, and the pattern that asked; (None, None) where none matches.

    The first pattern that matches any of the group's producers counts.
    """
    if not isinstance(ratio, Mapping):
        return ratio, None
    for pattern, value in ratio.items():
        if any(fnmatchcase(name, pattern) for name in group.layers):
            return value, pattern
    return None, None


def kept_count(size: int, ratio: float, round_to: int) -> int:
    """How many of ``size`` channels that can leave stay.

    max(1, ⌊size·(1 − ratio)⌋) with ``round_to`` 1 or in groups under 2·``round_to`` channels; else
    the nearest multiple of ``round_to``, at least ``round_to`` and at most ``size``.
    """
    if ratio == 0:
        return size
    wanted = size * (1 - ratio)
    if round_to > 1 and size >= 2 * round_to:
        return min(size, max(round_to, round_to * math.floor(wanted / round_to + 0.5)))
    return max(1, math.floor(wanted + _SLACK))


def choose(choices: Sequence[Choice], scope: Scope, round_to: int) -> list[Mask]:
    """For every choice which channels stay, bool (n,).

    With scope "group" each group loses its own ratio. With "global" the channels of all groups with
    the same ratio are ranked together, their scores divided by their group's mean; the ranking
    decides how many each group loses.
    """
    counts = [kept_count(choice.group.free, choice.ratio, round_to) for choice in choices]
    if scope == "global":
        counts = _global_counts(choices, round_to)
    return [_keep(choice, count) for choice, count in zip(choices, counts, strict=True)]


def _global_counts(choices: Sequence[Choice], round_to: int) -> list[int]:
    counts = [choice.group.free for choice in choices]
    pools: dict[float, list[int]] = defaultdict(list)
    for number, choice in enumerate(choices):
        if choice.ratio > 0:
            pools[choice.ratio].append(number)
    for ratio, numbers in pools.items():
        quota = sum(counts[i] - kept_count(counts[i], ratio, 1) for i in numbers)
        ranked = [_removable(choices[i]) for i in numbers]
        owners = np.repeat(numbers, [len(scores) for scores in ranked])
        order = np.argsort(np.concatenate(ranked), kind="stable")[:quota]
        lost = np.bincount(owners[order], minlength=len(counts))
        for i in numbers:
            counts[i] = kept_count(counts[i], lost[i] / counts[i], round_to)
    return counts


def _removable(choice: Choice) -> NDArray[np.float64]:
    """Scores relative to the group's mean, of all that can leave but the best one."""
    mean = choice.scores.mean()
    relative = choice.scores / mean if mean > 0 else choice.scores
    return np.sort(relative[~choice.group.fixed])[:-1]


def _keep(choice: Choice, count: int) -> Mask:
    """The ``count`` best of the channels that can leave, and all that can't.

    Blocks keep equal numbers, and every producer and segment keeps at least one channel.
    """
    group = choice.group
    keep: Mask = group.fixed.copy()
    if count >= group.free:
        return np.ones(group.size, bool)
    ranking = np.where(group.fixed, np.inf, choice.scores)
    blocks = np.zeros(group.size, int) if group.blocks is None else group.blocks
    number = int(blocks.max()) + 1
    most_fixed = max(int(keep[blocks == block].sum()) for block in range(number))
    each = max(1, (count + int(keep.sum())) // number, most_fixed)
    for members in (np.flatnonzero(blocks == block) for block in range(number)):
        keep[members[np.argsort(-ranking[members], kind="stable")[:each]]] = True
    for part in (*group.parts, *group.segments):
        if not keep[part].any():
            keep[part[np.argmax(ranking[part])]] = True
    return keep

"""The share of its channels that a group is asked to lose, and how many then stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from bequest.errors import UsageError
from bequest.graph.groups import Group

Ratio = float | Mapping[str, float]
_SLACK = 1e-6  # a product such as 10·(1 − 0.7) must not fall just short of an integer


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


def kept_count(size: int, ratio: float, round_to: int, *, strictly: bool = False) -> int:
    """How many of ``size`` channels that can leave stay.

    max(1, ⌊size·(1 − ratio)⌋) with ``round_to`` 1 or in groups under 2·``round_to`` channels; else
    the nearest multiple of ``round_to``, at least ``round_to`` and at most ``size``. ``strictly``,
    small groups keep a multiple, too, and those under ``round_to`` all.
    """
    if ratio == 0:
        return size
    wanted = size * (1 - ratio)
    if round_to > 1 and (strictly or size >= 2 * round_to):
        return min(size, max(round_to, round_to * math.floor(wanted / round_to + 0.5)))
    return max(1, math.floor(wanted + _SLACK))

"""Finds, among groups that can't lose channels together, those that are to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from bequest.surgery.cut import Chosen

UNTRIED = " (tried with {} others alone, where the search ended: prune it by itself to see)"


def narrowed(
    parts: Iterable[list[Chosen]],
    problem: Callable[[list[Chosen]], str | None],
    tries: float = inf,
) -> tuple[list[Chosen], list[tuple[Chosen, str]]]:
    """Groups without a problem together, and the others with theirs.

    Of a part with a problem both halves are tried, and halves of those; after so many tries it is
    left out as a whole.
    """
    sound: list[Chosen] = []
    misfits: list[tuple[Chosen, str]] = []
    pending = [part for part in parts if part]
    tried = 0
    while pending:
        some = pending.pop(0)
        tried += 1
        found = problem([*sound, *some])
        if found is None:
            sound += some
        elif len(some) > 1 and tried < tries:
            pending[:0] = [some[: len(some) // 2], some[len(some) // 2 :]]
        else:
            together = "" if len(some) == 1 else UNTRIED.format(len(some) - 1)
            misfits += [(one, found + together) for one in some]
    return sound, misfits

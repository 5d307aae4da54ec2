"""How many channels each group keeps, and which."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bequest.artifact.plan import Refusal
from bequest.graph.groups import Group
from bequest.selection.ratio import kept_count
from bequest.surgery.cut import Chosen, Mask

Scope = Literal["group", "global"]

LOOSE = 8
"""The largest ``round_to`` that groups of fewer than two multiples needn't follow."""


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


@dataclass(frozen=True)
class Bundle:
    """Choices that lose equally many channels.

    Attributes:
        members: their numbers.
        bearable: how many each of them can lose, ascending; None = any number.
    """

    members: tuple[int, ...]
    bearable: tuple[int, ...] | None = None

    def borne(self, lost: int) -> int:
        """The least number that can be lost from ``lost`` on; the greatest where there is none."""
        if self.bearable is None:
            return lost
        return next((number for number in self.bearable if number >= lost), self.bearable[-1])


def choose(choices: Sequence[Choice], scope: Scope, round_to: int) -> list[Mask]:
    """For every choice which channels stay, bool (n,).

    With scope "group" each group loses its own ratio. With "global" the channels of all groups with
    the same ratio are ranked together, their scores divided by their group's mean; the ranking
    decides how many each group loses.
    """
    counts = [_kept(choice, choice.ratio, round_to) for choice in choices]
    if scope == "global":
        counts = _global_counts(choices, round_to)
    return [_keep(choice, count) for choice, count in zip(choices, counts, strict=True)]


def _kept(choice: Choice, ratio: float, round_to: int) -> int:
    """How many channels of a group stay at a ratio.

    Whoever asks for more than :data:`LOOSE` has kernels that want it of every width: that of heads
    is the number of rows.
    """
    group = choice.group
    if round_to <= LOOSE:
        return kept_count(group.free, ratio, round_to)
    rows = len(group.producers[0].labels) // max(1, len(group.parts[0]))
    return kept_count(group.free, ratio, round_to // math.gcd(round_to, rows), strictly=True)


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
            counts[i] = _kept(choices[i], lost[i] / counts[i], round_to)
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


def chosen_from(choices: Sequence[Choice], scope: Scope, round_to: int) -> list[Chosen]:
    """Which channels stay of every group that loses any."""
    chosen = []
    for choice, keep in zip(choices, choose(choices, scope, round_to), strict=True):
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


def left_whole(
    choices: Iterable[Choice], masks: Iterable[Mask], scope: str, round_to: int
) -> list[Refusal]:
    """Groups of which a share was asked that comes to no channel, and why."""
    found = []
    for choice, keep in zip(choices, masks, strict=True):
        if not choice.ratio or not keep.all():
            continue
        free = choice.group.free
        if scope == "group" and _kept(choice, choice.ratio, round_to) == free:
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

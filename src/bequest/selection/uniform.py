"""Equal widths for layers of a kind: a class builds all of its layers of one configuration.

Layers of a kind are those that differ in the numbers of their names alone: ``layers.0.mlp.fc1``,
``layers.1.mlp.fc1``. Of a network of transformers only such widths are pruned that a configuration
of its class can say, see :mod:`bequest.artifact.settings`.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from bequest.artifact.plan import Refusal
from bequest.artifact.settings import expressions, objection, situations
from bequest.calibration.subject import Subject
from bequest.errors import UsageError
from bequest.execution.caches import is_pretrained
from bequest.graph.trace import meta_copy
from bequest.selection.policy import Policy
from bequest.selection.ratio import kept_count
from bequest.selection.widths import Bundle, Choice, chosen_from
from bequest.surgery import operation
from bequest.surgery.cut import Chosen, Cut
from bequest.surgery.cuts import plan_surgery

_HALF = 0.5  # at which it is tried whether a configuration can say a width


def require_equal(choices: Sequence[Choice]) -> None:
    """Refuses a ratio that asks layers of a kind for different shares.

    Raises:
        UsageError: it names two of them.
    """
    for numbers in _kinds(choices):
        first, *others = (choices[number] for number in numbers)
        for other in others:
            if other.ratio != first.ratio:
                raise UsageError(
                    f"uniform: expected one share for layers of a kind, found {first.ratio:g} for "
                    f"'{first.group.name}' and {other.ratio:g} for '{other.group.name}'"
                )


def inexpressible(subject: Subject, choices: Sequence[Choice], policy: Policy) -> list[Refusal]:
    """Groups whose widths no configuration of the network's class can say; none of other libraries.

    Widths that follow from each other are said together where a ratio asks for the same share.
    """
    if not is_pretrained(subject.model) or not choices:
        return []
    if policy.target is None:
        together = chosen_from(choices, policy.scope, policy.round_to)
        if not together or _said(subject, together) is not None:
            return []
    name = type(subject.model.config).__name__
    return [
        Refusal(
            choices[number].group.name,
            choices[number].group.size,
            f"uniform: no number of {name} stands for its width alone",
        )
        for numbers in _kinds(choices)
        if _said_at_half(subject, [choices[number] for number in numbers]) is None
        for number in numbers
    ]


def bundled(subject: Subject, choices: Sequence[Choice], policy: Policy) -> tuple[Bundle, ...]:
    """Layers of a kind, and how many channels they can lose."""
    found = []
    for numbers in _kinds(choices):
        members = [choices[number] for number in numbers]
        bearable = None
        if policy.target is not None and is_pretrained(subject.model):
            bearable = _bearable(subject, members, policy.round_to)
        found.append(Bundle(tuple(numbers), bearable))
    return tuple(found)


def _kinds(choices: Sequence[Choice]) -> list[list[int]]:
    """Numbers of the choices of each kind."""
    kinds: dict[object, list[int]] = defaultdict(list)
    for number, choice in enumerate(choices):
        group = choice.group
        pattern = re.sub(r"(?<![^.])\d+(?![^.])", "*", group.name)
        kinds[pattern, group.size, group.free].append(number)
    return list(kinds.values())


def _bearable(subject: Subject, members: Sequence[Choice], round_to: int) -> tuple[int, ...] | None:
    """How many heads can leave; any number of other channels."""
    said = _said_at_half(subject, members)
    if said is None or not any("head" in name for name in said[1]):
        return None
    config, names = said[0], said[1]
    group = members[0].group
    found = [0]
    for lost in range(1, group.free):
        kept = (group.size - lost) / group.size
        numbers = [getattr(config, name) * kept for name in names]
        rounded = kept_count(group.free, lost / group.free, round_to) != group.free - lost
        if rounded or any(number != int(number) for number in numbers):
            continue
        smaller = copy.deepcopy(config)
        for name, number in zip(names, numbers, strict=True):
            setattr(smaller, name, int(number))
        if objection(smaller) is None:
            found.append(lost)
    return tuple(found)


def _said_at_half(subject: Subject, members: Sequence[Choice]) -> tuple[Any, list[str]] | None:
    halves = [replace(choice, ratio=_HALF) for choice in members]
    return _said(subject, chosen_from(halves, "group", round_to=1))


def _said(subject: Subject, chosen: list[Chosen]) -> tuple[Any, list[str]] | None:
    """The dense configuration, and names of its numbers that say widths; None = none say them."""
    model: nn.Module = meta_copy(subject.dense)
    surgery = plan_surgery(Cut.of(subject.channels, chosen), subject.dense)
    operation.apply(model, surgery)
    shares = {float(one.keep.mean()) for one in chosen}
    for situation in situations(model, surgery):
        for _, changes in expressions(situation, shares):
            return situation.config, list(changes)
    return None

"""Whether the model's own code bears that groups lose channels; else it becomes a program."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from bequest.artifact.plan import Form, Refusal
from bequest.calibration.subject import Subject
from bequest.errors import ModelError
from bequest.graph.groups import Channels, Group
from bequest.graph.trace import run_shapes
from bequest.surgery import operation
from bequest.surgery.cut import Chosen, Cut
from bequest.surgery.cuts import plan_surgery
from bequest.surgery.emission import NotEmittable, check_emittable
from bequest.surgery.narrowing import narrowed
from bequest.surgery.verify import mismatch

RUNS, TRACES = 2**18, 2**16
"""Operators that are looked at to find the groups that the code does not bear, in passes without
data and in traces: about two minutes each. A number, not a time: the same on any machine."""


def form_and_misfits(subject: Subject, chosen: list[Chosen]) -> tuple[Form, list[Refusal]]:
    """The model's own class where its code can hold what is left, else a program.

    Where the network can't be written down as one either, the groups concerned are refused.
    """
    dense, inputs, channels = subject.dense, subject.inputs, subject.channels
    if try_out(dense, inputs, channels, chosen) is None:
        return "module", []
    try:
        check_emittable(dense, inputs, channels)
    except NotEmittable as reason:
        return "module", _misfits(subject, chosen, reason)
    return "program", []


def require_sound(subject: Subject, chosen: list[Chosen]) -> None:
    """Checks that the network runs without some channels.

    Raises:
        ModelError: it doesn't.
    """
    problem = try_out(subject.dense, subject.inputs, subject.channels, chosen)
    if problem is not None:
        raise ModelError(f"the pruned network would not run as planned: {problem}")


def final_form(subject: Subject, chosen: list[Chosen]) -> Form:
    """The form of the network without the channels that were chosen in the end.

    Raises:
        ModelError: it has none.
    """
    form, misfits = form_and_misfits(subject, chosen)
    if misfits:
        found = "; ".join(f"'{one.group}': {one.reason}" for one in misfits)
        raise ModelError(f"the pruned network would not run as planned: {found}")
    return form


def try_out(
    model: nn.Module, example_inputs: Any, channels: Channels, chosen: list[Chosen]
) -> str | None:
    """What keeps the network from running without the chosen channels; None where it runs."""
    cut = Cut.of(channels, chosen)
    return mismatch(model, example_inputs, cut, plan_surgery(cut, model))


def _misfits(subject: Subject, chosen: list[Chosen], no_program: NotEmittable) -> list[Refusal]:
    """The groups that the code doesn't bear to shrink, and why.

    Most of what doesn't fit shows in a pass without data; only what passes there is traced. Groups
    that meet no size in the code come first: they are hardly ever to blame.
    """
    dense, inputs, channels = subject.dense, subject.inputs, subject.channels
    literal = [one for one in chosen if one.group.literal]
    plain = [one for one in chosen if not one.group.literal]
    operators = len(channels.reading.network.nodes)

    def passes(some: list[Chosen]) -> str | None:
        surgery = plan_surgery(Cut.of(channels, some), dense)
        try:
            run_shapes(dense, inputs, partial(operation.apply, surgery=surgery))
        except Exception as error:  # whatever the model's own code raises at other widths
            return " ".join(str(error).split())[:200]
        return None

    def computes(some: list[Chosen]) -> str | None:
        return try_out(dense, inputs, channels, some)

    running, misfits = narrowed([plain, literal], passes, RUNS / operators)
    _, more = narrowed([running], computes, TRACES / operators)
    return [_misfit(one.group, f"{found}; {no_program}") for one, found in (*misfits, *more)]


def _misfit(group: Group, found: str) -> Refusal:
    where = ", ".join(group.literal)
    constant = f"its width is a constant in the code ({where})"
    reason = constant if where else "the model's code does not run at another width"
    return Refusal(group.name, group.size, f"{reason}: {found}")

"""Who could leave, why others stay, and the form in which the network bears it."""

from __future__ import annotations

from dataclasses import dataclass

from bequest.artifact.plan import Form, Refusal
from bequest.calibration.subject import Subject
from bequest.selection.bearing import form_and_misfits
from bequest.selection.candidates import candidates, require_rivals
from bequest.selection.policy import Policy
from bequest.selection.ranking import rank, rank_observed
from bequest.selection.uniform import bundled, inexpressible, require_equal
from bequest.selection.widths import Bundle, Choice, choose, chosen_from, left_whole


@dataclass(frozen=True)
class Selection:
    """Who could leave.

    Attributes:
        choices: groups that can lose channels, with their scores.
        refused: others that the call asked for, and why they stay.
        form: the model's own class, or a program where its code doesn't bear other widths.
        bundles: choices that lose equally many channels, where that is asked for; else None.
    """

    choices: tuple[Choice, ...]
    refused: tuple[Refusal, ...]
    form: Form
    bundles: tuple[Bundle, ...] | None = None


def select(subject: Subject, policy: Policy) -> Selection:
    """Ranks the channels of all groups that are asked for, and tries the ratio out.

    Groups that the model's code doesn't bear to shrink are refused, where the network can't be
    written down as a program either.
    """
    asked, refused = candidates(subject.channels, policy)
    if policy.scope == "global":
        require_rivals(asked, policy.ratio)
    ranking = rank_observed if policy.observes else rank
    choices, unscored = ranking(subject, asked, policy)
    refused.extend(unscored)
    if policy.uniform:
        require_equal(choices)
        unsaid = inexpressible(subject, choices, policy)
        choices = [one for one in choices if one.group.name not in {u.group for u in unsaid}]
        refused.extend(unsaid)
    if policy.target is None:
        masks = choose(choices, policy.scope, policy.round_to)
        refused.extend(left_whole(choices, masks, policy.scope, policy.round_to))
    chosen = chosen_from(choices, policy.scope, policy.round_to)
    form, misfits = form_and_misfits(subject, chosen)
    names = {one.group for one in misfits}
    left = tuple(choice for choice in choices if choice.group.name not in names)
    bundles = bundled(subject, left, policy) if policy.uniform else None
    return Selection(left, (*refused, *misfits), form, bundles)

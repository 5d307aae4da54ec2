"""Every candidate group's scores, from its weights or from what the layers behind it see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bequest.artifact.plan import Refusal
from bequest.calibration.observed import calibrate
from bequest.calibration.subject import Subject
from bequest.criteria import OBS
from bequest.criteria.base import Criterion, Unscorable
from bequest.execution.precision import at_least_single
from bequest.execution.progress import tracked
from bequest.graph.chains import bind
from bequest.graph.groups import Group
from bequest.graph.trace import named_tensors
from bequest.graph.units import Reader, Unit
from bequest.selection.policy import Policy
from bequest.selection.widths import Choice

Candidate = tuple[Group, float]
"""A group and the ratio that it is asked to lose."""


def rank(
    subject: Subject, candidates: Sequence[Candidate], policy: Policy
) -> tuple[list[Choice], list[Refusal]]:
    """Scores from the dense weights; a group's float64 copy is gone when the next one is read."""
    tensors = named_tensors(subject.dense)
    choices: list[Choice] = []
    refused: list[Refusal] = []
    for member, share in tracked(candidates, "ranking channels", candidates, policy.progress):
        unit = bind(subject.channels, member, tensors).unit
        try:
            scores = _scores(policy.criterion.judge(unit), unit, policy.seed)
            choices.append(Choice(member, share, scores))
        except Unscorable as finding:
            refused.append(Refusal(member.name, member.size, finding.reason))
    return choices, refused


def rank_observed(
    subject: Subject, candidates: Sequence[Candidate], policy: Policy
) -> tuple[list[Choice], list[Refusal]]:
    """Scores, and predicted losses, with what the layers behind each group see over samples."""
    assert subject.samples is not None
    model, channels = at_least_single(subject.dense), subject.channels
    tensors = named_tensors(model)
    shares = {member.name: share for member, share in candidates}
    choices: dict[str, Choice] = {}
    refused: list[Refusal] = []

    def score(member: Group, readers: tuple[Reader, ...]) -> None:
        unit = replace(bind(channels, member, tensors).unit, readers=readers)
        try:
            scores, losses = _observed(policy, unit)
        except Unscorable as finding:
            refused.append(Refusal(member.name, member.size, finding.reason))
        else:
            choices[member.name] = Choice(member, shares[member.name], scores, losses)

    groups = [member for member, _ in candidates]
    calibrate(
        channels, groups, model, subject.samples, score, seed=policy.seed, show=policy.progress
    )
    return [choices[member.name] for member in groups if member.name in choices], refused


def _observed(policy: Policy, unit: Unit) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores and predicted losses; the latter only if needed where they take a while."""
    judge = policy.criterion.judge(unit)
    scores = _scores(judge, unit, policy.seed)
    if isinstance(judge, OBS) and judge.ridge == OBS().ridge:  # then they are the losses
        return scores, np.sort(scores)
    if judge is not policy.criterion and policy.target is None:
        return scores, None
    return scores, np.sort(_losses(unit, scores))


def _losses(unit: Unit, scores: np.ndarray) -> np.ndarray:
    """What has mounted up when each channel leaves in the order of the scores, (n,)."""
    order = np.argsort(scores, kind="stable").tolist()
    losses: np.ndarray = OBS().losses(unit, order).cpu().numpy()
    return losses


def _scores(criterion: Criterion, unit: Unit, seed: int) -> np.ndarray:
    if not unit.producers:
        raise Unscorable(criterion.name, unit.name, "its weights are computed")
    scores: np.ndarray = criterion.score(unit, seed).cpu().numpy()
    return scores

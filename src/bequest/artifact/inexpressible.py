"""Why no configuration of transformers says a pruned network's widths, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bequest.artifact.plan import GroupPlan, Plan
from bequest.artifact.settings import Place, Setting, Situation

_SHOWN = 3


def refusal(seen: Sequence[Situation], plan: Plan, problems: Sequence[str]) -> str:
    """All that stands in the way, each with what to do.

    Args:
        seen: the ways to look at the network, the most explicit last.
        plan: the plan that made it.
        problems: what is wrong with configurations that have its widths.
    """
    situation = seen[-1]
    kind = type(situation.config).__name__
    found = list(dict.fromkeys(problems))
    found = found or [*_biases(situation), *_unsaid(situation, plan), *_unequal(situation)]
    found = found or [f"none of its numbers stands for {_listed(situation.changed)}"]
    return f"save_pretrained: {kind} can't say what the pruned network is: {'; '.join(found)}"


def _biases(situation: Situation) -> Iterable[str]:
    """Tensors that the class doesn't have."""
    if situation.unknown:
        yield (
            f"its class has no {_names(situation.unknown)}, which restoring has added; restore it "
            "with bias='keep'"
        )


def _unsaid(situation: Situation, plan: Plan) -> Iterable[str]:
    """Widths that follow from others, or stand in the code."""
    said = {
        place
        for setting in situation.settings
        if situation.free(setting)
        for place in setting.slopes
    }
    unsaid = sorted(set(situation.changed) - said)
    if not unsaid:
        return
    groups = [group.name for group in plan.groups if _concerned(group, unsaid, situation)]
    patterns = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", group) for group in groups)
    ratio = ", ".join(f"{pattern!r}: 0" for pattern in patterns)
    widths = {place: situation.changed[place] for place in unsaid}
    yield (
        f"no number of it stands for {_listed(widths)}; "
        f"leave {_names(groups)} whole: ratio={{{ratio}, '*': ...}}"
    )


def _concerned(group: GroupPlan, unsaid: Sequence[Place], situation: Situation) -> bool:
    """Whether widths of a group's producers are among those that nothing says."""
    changed = situation.changed
    return any(
        tensor.rpartition(".")[0] in group.producers
        and changed[tensor, dim][0] * group.kept == changed[tensor, dim][1] * group.size
        for tensor, dim in unsaid
    )


def _unequal(situation: Situation) -> Iterable[str]:
    """Settings of which layers would need several values."""
    for setting in situation.settings:
        if situation.free(setting):
            wanted: dict[float, list[str]] = {}
            for (tensor, _), value in situation.wanted(setting).items():
                wanted.setdefault(value, []).append(tensor.rpartition(".")[0])
            if len(wanted) > 1 and not _shared(setting, situation):
                values = ", ".join(
                    f"{value:g} in {_names(list(dict.fromkeys(layers)))}"
                    for value, layers in sorted(wanted.items())
                )
                yield (
                    f"{setting.name} is one number for all layers, found {values}; ask for one "
                    "ratio= for all of them, or for uniform=True"
                )


def _shared(setting: Setting, situation: Situation) -> bool:
    """Whether other settings stand for all the dimensions of this one, too."""
    others = [one for one in situation.settings if one is not setting and situation.free(one)]
    return all(any(place in one.slopes for one in others) for place in setting.slopes)


def _listed(changed: dict[Place, tuple[int, int]]) -> str:
    shown = [
        f"{tensor} ({before} → {after} along {dim})"
        for (tensor, dim), (before, after) in list(changed.items())[:_SHOWN]
    ]
    return ", ".join(shown) + (" ..." if len(changed) > _SHOWN else "")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" ... ({len(names)})" if len(names) > _SHOWN else "")

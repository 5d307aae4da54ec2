"""Why no configuration of transformers says a pruned network's widths, in words."""

from __future__ import annotations

import math
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
    unsaid, unequal = _unsaid(situation, plan), _unequal(situation, plan)
    found = found or [*_biases(situation), *unsaid, *unequal]
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


def _unequal(situation: Situation, plan: Plan) -> Iterable[str]:
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
                places = list(situation.wanted(setting))
                sizes = {one.size for one in plan.groups if _concerned(one, places, situation)}
                yield (
                    f"{setting.name} is one number for all layers, found {values}; "
                    f"ask for {_alike(plan, sorted(sizes))}uniform=True"
                )


def _alike(plan: Plan, sizes: Sequence[int]) -> str:
    """A ratio by which groups lose one share: of 4 heads and 32 channels a quarter each."""
    asked = plan.recipe.get("ratio")
    if not isinstance(asked, int | float):
        return "one ratio= for all of them, or for "
    parts = math.gcd(*sizes)
    shares = sorted((part / parts for part in range(1, parts)), key=lambda one: abs(one - asked))
    if not shares:
        return ""
    nearest = " or ".join(f"{share:.9g}" for share in sorted(shares[:2]))
    return f"ratio={nearest}, which {' and '.join(map(str, sizes))} channels lose alike, or for "


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

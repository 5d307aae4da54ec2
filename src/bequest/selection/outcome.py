"""What to say of a call that asked for pruning and removed no channel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from bequest.artifact.plan import GroupPlan, Refusal
from bequest.errors import NothingPrunedWarning
from bequest.selection.ratio import Ratio

_SHOWN = 3

NOTHING = "nothing was pruned"
"""How the message begins of a call that removed no channel."""


def nothing_pruned(
    ratio: Ratio | None, groups: Sequence[GroupPlan], refused: Sequence[Refusal]
) -> str | None:
    """What to say where a call asked for pruning and no channel left; None where one did."""
    asked = max(ratio.values()) if isinstance(ratio, Mapping) else ratio
    if groups or asked == 0:
        return None
    reasons = [f"'{one.group}': {one.reason}" for one in refused[:_SHOWN]]
    if len(refused) > _SHOWN:
        reasons.append(f"and {len(refused) - _SHOWN} more in report.refused")
    return f"{NOTHING}: " + ("; ".join(reasons) or "no group of channels can lose any")


def warn_of_nothing(
    ratio: Ratio | None, groups: Sequence[GroupPlan], refused: Sequence[Refusal]
) -> tuple[str, ...]:
    """Warns the caller of the caller where nothing was pruned; the same as notes of a report."""
    idle = nothing_pruned(ratio, groups, refused)
    if idle is None:
        return ()
    warnings.warn(idle, NothingPrunedWarning, stacklevel=4)
    return (idle,)

"""The checked arguments of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bequest import config
from bequest.calibration.inputs import Source
from bequest.calibration.inputs.asked import require_agreed, resolved
from bequest.calibration.samples import Samples
from bequest.criteria import L2, OBS
from bequest.criteria.base import Criterion
from bequest.errors import UsageError
from bequest.restorers.base import Restorer
from bequest.selection.policy import Policy, checked
from bequest.selection.targets.base import Target
from bequest.selection.widths import Scope


@dataclass(frozen=True)
class Call(Policy):
    """Who leaves, and what is made of it.

    Attributes:
        restorer: what the removed channels leave behind.
        data: inputs to look at; None = they are made up where something looks at them.
        outputs: names of the results that count; None = all.
    """

    restorer: Restorer
    data: Samples | Source | None
    outputs: tuple[str, ...] | None = None

    @classmethod
    def checked(
        cls,
        *,
        restorer: Any,
        effort: str | None = None,
        data: Any = None,
        outputs: Any = None,
        **policy: Any,
    ) -> Call:
        """Checks the arguments of :func:`bequest.prune` and resolves names to config objects.

        Raises:
            UsageError: one of them is wrong.
        """
        method = config.resolve("restorer", restorer, Restorer)
        arguments = checked(**policy)
        criterion, scope = arguments["criterion"], arguments["scope"]
        if criterion is None:
            arguments["criterion"] = _default(method, scope, arguments["target"])
        elif scope == "global" and isinstance(criterion, OBS) and criterion.otherwise:
            raise UsageError(
                "scope: 'global' ranks channels of all groups by one criterion, found one that "
                "leaves some groups to another; leave otherwise out"
            )
        method = method if effort is None else method.at(effort)
        results = _checked_outputs(outputs)
        call = cls(**arguments, restorer=method, data=resolved(data), outputs=results)
        if call.reads_inputs:
            require_agreed(method, method.inputs(), call.data)
        elif data is not None:
            raise UsageError(
                f"data: the criterion '{call.criterion.name}' and the restorer "
                f"'{method.name}' read weights alone; use restorer='regression', or leave data out"
            )
        return call

    def to_json(self) -> dict[str, Any]:
        """The recipe as plan.json holds it."""
        return {
            "ratio": dict(self.ratio) if isinstance(self.ratio, Mapping) else self.ratio,
            "target": None if self.target is None else str(self.target),
            "groups": self.groups,
            "criterion": config.to_json(self.criterion),
            "scope": self.scope,
            "restorer": config.to_json(self.restorer),
            "round_to": self.round_to,
            **({"uniform": True} if self.uniform else {}),
            **({} if self.outputs is None else {"outputs": list(self.outputs)}),
            "seed": self.seed,
        }

    @property
    def reads_inputs(self) -> bool:
        """Whether the network is run over inputs: to know what layers see, or to refit them."""
        return self.observes or self.restorer.reads_inputs


def _default(restorer: Restorer, scope: Scope, target: Target | None) -> Criterion:
    """Who leaves where nobody says it: what layers see decides where they are looked at anyway.

    Over all groups at once one criterion ranks, and it has to know every group. A target that
    observes predicts what each group loses, which takes the same eliminations.
    """
    if not restorer.reads_inputs or scope == "global":
        return L2()
    return OBS() if target is not None and target.observes else OBS(otherwise="l2")


def _checked_outputs(outputs: Any) -> tuple[str, ...] | None:
    """Names of results; numbers are places in a tuple."""
    if outputs is None:
        return None
    given = outputs if isinstance(outputs, list | tuple) else None
    if not given or not all(type(one) in (str, int) for one in given):
        raise UsageError(
            "outputs: expected a list of the results that count, by name ('logits') or place (0), "
            f"found {outputs!r}"
        )
    return tuple(one if isinstance(one, str) else f"[{one}]" for one in given)

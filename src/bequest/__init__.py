"""bequest: smaller PyTorch networks, restored in closed form, without training and without data.

The table of contents. Prune and restore: :func:`prune`, :func:`inspect`, :func:`load`,
:func:`export`, :class:`Pruned`. Measure: :func:`evaluate`, :func:`perplexity`, :func:`robustness`,
:func:`cost`, :func:`latency`. Methods: :mod:`bequest.criteria`, :mod:`bequest.restorers`,
:mod:`bequest.calibration.inputs`, :mod:`bequest.robust`; for those who train:
:mod:`bequest.hypersphere`. Networks and images: :mod:`bequest.zoo`, :mod:`bequest.data`. Everything
is imported on first use, so that ``bequest --help`` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bequest._version import __version__

if TYPE_CHECKING:
    from bequest import (
        calibration,
        criteria,
        data,
        hypersphere,
        restorers,
        robust,
        sweeping,
        zoo,
    )
    from bequest.artifact import Plan, load, load_plan
    from bequest.artifact.export import export
    from bequest.errors import BequestError
    from bequest.measure import cost, evaluate, latency, perplexity, robustness
    from bequest.pruning import Pruned, Report, prune
    from bequest.selection.inspection import inspect
    from bequest.sweeping import sweep

_HOMES = {
    "BequestError": "bequest.errors",
    "Plan": "bequest.artifact",
    "Pruned": "bequest.pruning",
    "Report": "bequest.pruning",
    "cost": "bequest.measure",
    "evaluate": "bequest.measure",
    "export": "bequest.artifact.export",
    "inspect": "bequest.selection.inspection",
    "latency": "bequest.measure",
    "load": "bequest.artifact",
    "load_plan": "bequest.artifact",
    "perplexity": "bequest.measure",
    "prune": "bequest.pruning",
    "robustness": "bequest.measure",
    "sweep": "bequest.sweeping",
}
_MODULES = frozenset(
    {"calibration", "criteria", "data", "hypersphere", "restorers", "robust", "sweeping", "zoo"}
)

__all__ = [
    "BequestError",
    "Plan",
    "Pruned",
    "Report",
    "__version__",
    "calibration",
    "cost",
    "criteria",
    "data",
    "evaluate",
    "export",
    "hypersphere",
    "inspect",
    "latency",
    "load",
    "load_plan",
    "perplexity",
    "prune",
    "restorers",
    "robust",
    "robustness",
    "sweep",
    "sweeping",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"bequest.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bequest' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__

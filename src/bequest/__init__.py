"""bequest: smaller PyTorch networks, restored in closed form, without training and without data.

The table of contents. Prune and restore: :func:`prune`, :func:`load`, :class:`Pruned`. Measure:
:func:`evaluate`, :func:`cost`, :func:`latency`. Methods: :mod:`bequest.criteria`,
:mod:`bequest.restorers`. Networks and images: :mod:`bequest.zoo`, :mod:`bequest.data`.
"""

from bequest import criteria, data, restorers, zoo
from bequest._version import __version__
from bequest.artifact import load, load_plan
from bequest.artifact.plan import Plan
from bequest.errors import BequestError
from bequest.inspection import inspect
from bequest.measure import cost, evaluate, latency
from bequest.pruning import Pruned, Report, prune

__all__ = [
    "BequestError",
    "Plan",
    "Pruned",
    "Report",
    "__version__",
    "cost",
    "criteria",
    "data",
    "evaluate",
    "inspect",
    "latency",
    "load",
    "load_plan",
    "prune",
    "restorers",
    "zoo",
]

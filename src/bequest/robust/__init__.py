"""Pruning with a bound on what changes: progressive, keeping accuracy and robustness."""

from bequest.config import discover
from bequest.robust.annealing import Baseline, Greedy, Stochastic, Strategy
from bequest.robust.pruning import prune
from bequest.robust.radius import certified_radius
from bequest.robust.records import Decision, RobustPruned, RobustReport, Step

__all__ = [
    "Baseline",
    "Decision",
    "Greedy",
    "RobustPruned",
    "RobustReport",
    "Step",
    "Stochastic",
    "Strategy",
    "certified_radius",
    "prune",
]

discover(__name__, __path__)

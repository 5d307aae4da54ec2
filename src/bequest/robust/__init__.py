"""Pruning with a bound on what changes: progressive, keeping accuracy and robustness."""

from bequest.config import discover
from bequest.robust.annealing import Baseline, Greedy, Stochastic, Strategy
from bequest.robust.certificates import Certificate, certified_change, certify
from bequest.robust.pruning import prune
from bequest.robust.radius import certified_radius
from bequest.robust.records import Decision, RobustPruned, RobustReport, Step

__all__ = [
    "Baseline",
    "Certificate",
    "Decision",
    "Greedy",
    "RobustPruned",
    "RobustReport",
    "Step",
    "Stochastic",
    "Strategy",
    "certified_change",
    "certified_radius",
    "certify",
    "prune",
]

discover(__name__, __path__)

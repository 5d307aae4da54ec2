"""What a model gives and what it costs: accuracy, robustness, parameters, MACs, size, latency."""

from bequest.measure.accuracy import Accuracy, evaluate
from bequest.measure.attacks import Robustness, robustness
from bequest.measure.cost import Cost, cost
from bequest.measure.latency import Latency, latency

__all__ = [
    "Accuracy",
    "Cost",
    "Latency",
    "Robustness",
    "cost",
    "evaluate",
    "latency",
    "robustness",
]

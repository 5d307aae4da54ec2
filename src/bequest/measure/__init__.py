"""What a model gives and costs: accuracy, perplexity, robustness, parameters, MACs, latency."""

from bequest.measure.accuracy import Accuracy, evaluate
from bequest.measure.attacks import Robustness, robustness
from bequest.measure.cost import Cost, cost
from bequest.measure.latency import Latency, latency
from bequest.measure.perplexity import Perplexity, perplexity

__all__ = [
    "Accuracy",
    "Cost",
    "Latency",
    "Perplexity",
    "Robustness",
    "cost",
    "evaluate",
    "latency",
    "perplexity",
    "robustness",
]

"""What a model gives and what it costs: accuracy, parameters, MACs, size, latency."""

from bequest.measure.accuracy import Accuracy, evaluate
from bequest.measure.cost import Cost, cost
from bequest.measure.latency import Latency, latency

__all__ = ["Accuracy", "Cost", "Latency", "cost", "evaluate", "latency"]

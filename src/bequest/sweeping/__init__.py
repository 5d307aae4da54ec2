"""Sweeps: networks × criteria × restorers × ratios × seeds, on idle cores or on a cluster."""

from bequest.sweeping.comparison import Cell, Comparison, Failure, Sweep
from bequest.sweeping.network import Images, Network, Tokens
from bequest.sweeping.run import sweep

__all__ = ["Cell", "Comparison", "Failure", "Images", "Network", "Sweep", "Tokens", "sweep"]

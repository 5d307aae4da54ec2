"""What the pruned network as a whole is to reach: the targets, one file each."""

from bequest.config import discover
from bequest.selection.targets.agreement import Agreement
from bequest.selection.targets.latency import Latency
from bequest.selection.targets.macs import Macs
from bequest.selection.targets.params import Params

__all__ = ["Agreement", "Latency", "Macs", "Params"]

discover(__name__, __path__)

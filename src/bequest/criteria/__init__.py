"""What a channel is worth: the criteria, one file each, named after the method."""

from bequest.config import discover
from bequest.criteria.bn_scale import BNScale
from bequest.criteria.he2019median import GeometricMedian
from bequest.criteria.kurtic2023obs import OBS
from bequest.criteria.mussay2020coreset import Coreset
from bequest.criteria.norm import L1, L2
from bequest.criteria.random import Random
from bequest.criteria.srinivas2015redundancy import Redundancy
from bequest.criteria.westphal2024mipp import MutualInformation

__all__ = [
    "L1",
    "L2",
    "OBS",
    "BNScale",
    "Coreset",
    "GeometricMedian",
    "MutualInformation",
    "Random",
    "Redundancy",
]

discover(__name__, __path__)

"""What those that leave hand on: the restorers, one file each, named after the method."""

from bequest.config import discover
from bequest.restorers.chen2024ifm import IFM
from bequest.restorers.kim2020merging import Merge
from bequest.restorers.lee2025lbyl import LBYL
from bequest.restorers.moments import MomentsRegression
from bequest.restorers.mussay2020coreset import Coreset
from bequest.restorers.none import Plain
from bequest.restorers.regression import Regression
from bequest.restorers.srinivas2015sum import Sum
from bequest.restorers.theus2024fusion import Fusion
from bequest.restorers.wang2025folding import Folding

__all__ = [
    "IFM",
    "LBYL",
    "Coreset",
    "Folding",
    "Fusion",
    "Merge",
    "MomentsRegression",
    "Plain",
    "Regression",
    "Sum",
]

discover(__name__, __path__)

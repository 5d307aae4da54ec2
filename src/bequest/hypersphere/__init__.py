"""Pruning at any moment, without retraining, of networks trained on the hypersphere.

Turn a network into a hyperspherical one and back: :func:`convert`, :func:`deconvert`. Train it:
:class:`HypersphericalPenalty` in a loop of your own (or :func:`penalty`, its plain form), or
:func:`train` by a :class:`Recipe`. Prune it: :func:`prune`; put means in the place of the
pruned weights: :func:`recover`; :func:`save` it. See what that came to: :func:`storage`,
:func:`spectral_report`.
"""

from bequest.hypersphere.convert import convert, deconvert
from bequest.hypersphere.layers import CosineClassifier, Hyperspherical, orthogonality
from bequest.hypersphere.penalty import HypersphericalPenalty, penalty
from bequest.hypersphere.recipe import Recipe
from bequest.hypersphere.recovery import prune, recover
from bequest.hypersphere.run import Trained
from bequest.hypersphere.saving import save
from bequest.hypersphere.spectrum import spectral_report
from bequest.hypersphere.storage import storage
from bequest.hypersphere.training import train
from bequest.sparse.recovered import Recovered

__all__ = [
    "CosineClassifier",
    "Hyperspherical",
    "HypersphericalPenalty",
    "Recipe",
    "Recovered",
    "Trained",
    "convert",
    "deconvert",
    "orthogonality",
    "penalty",
    "prune",
    "recover",
    "save",
    "spectral_report",
    "storage",
    "train",
]

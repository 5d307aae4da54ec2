"""Networks as their libraries make them, and a few of our own, with weights that tell."""

from __future__ import annotations

from collections.abc import Callable

from tests.architectures.families import generators, language, own, senses, timm, vision
from tests.architectures.subject import Subject
from tests.timm_support import name_missing_operators

FAMILIES = {
    "timm": timm.NETWORKS,
    "torchvision": vision.NETWORKS,
    "transformers": language.NETWORKS | senses.NETWORKS,
    "diffusers": generators.DIFFUSERS,
    "segmentation_models_pytorch": generators.SEGMENTERS,
    "torch": own.NETWORKS,
}
"""The library that must be installed → its networks by name."""

_NETWORKS: dict[str, Callable[[], Subject]] = {
    name: make for family in FAMILIES.values() for name, make in family.items()
}
NAMES = tuple(_NETWORKS)


def library_of(name: str) -> str:
    """The library that makes the network called ``name``."""
    return next(library for library, family in FAMILIES.items() if name in family)


def subject(name: str) -> Subject:
    """The network called ``name``; its library must be installed."""
    name_missing_operators()
    return _NETWORKS[name]()

"""Lets torchvision, and so timm, be imported where torchvision's compiled half does not load.

torchvision's wheels are built for one build of PyTorch. Beside another (the CPU build, say) the
compiled operators are missing, and importing the Python half fails where it describes ``nms`` to
the tracer. Networks for classification need none of these operators, so naming them is enough.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_named: list[torch.library.Library] = []
"""Keeps the names alive: they end with their ``Library``."""


def require(name: str) -> ModuleType:
    """The module ``timm``, ``torchvision`` or one of theirs; skips the test where it is absent."""
    for package in {"torchvision", name.partition(".")[0]}:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; bequest[vision] brings it")
    name_missing_operators()
    return importlib.import_module(name)


def name_missing_operators() -> None:
    """Makes ``import torchvision`` work beside another build of PyTorch than its own."""
    if not _named and importlib.util.find_spec("torchvision") and not _has_operators():
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _named.append(library)


def _has_operators() -> bool:
    """Loads torchvision's compiled half as its own import does; False where that fails."""
    package = importlib.util.find_spec("torchvision")
    assert package is not None
    assert package.origin is not None
    try:
        torch.ops.load_library(Path(package.origin).parent / "_C.so")
    except OSError:
        return False
    return True

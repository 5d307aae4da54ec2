"""auto_LiRPA's CROWN of pruned(x) − dense(x) as one module: bounds of other people's making.

Its last release on the index (0.3) is of a time when torch and numpy had names that have moved
since; :func:`crown` puts them back. It needs ``appdirs`` and ``pyyaml`` and nothing else of what it
says that it does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MISSING = [
    name
    for name in ("auto_LiRPA", "appdirs", "yaml", "torchvision")
    if importlib.util.find_spec(name) is None
]


class Difference(nn.Module):
    """pruned(x) − dense(x)."""

    def __init__(self, dense: nn.Module, pruned: nn.Module) -> None:
        super().__init__()
        self.dense, self.pruned = dense, pruned

    def forward(self, x: Tensor) -> Any:
        return self.pruned(x) - self.dense(x)


def _library() -> Any:
    moved: Any = types.ModuleType("numpy.lib.arraysetops")
    moved.isin = np.isin
    sys.modules.setdefault("numpy.lib.arraysetops", moved)
    helper: Any = importlib.import_module("torch.onnx.symbolic_helper")
    exporter: Any = importlib.import_module("torch.onnx._internal.torchscript_exporter._globals")
    helper._set_opset_version = lambda opset: setattr(
        exporter.GLOBALS, "export_onnx_opset_version", opset
    )
    node: Any = torch._C.Node
    node.__getitem__ = lambda node, name: getattr(node, node.kindOf(name))(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("auto_LiRPA")


def crown(
    dense: nn.Module, pruned: nn.Module, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor]:
    """(lower, upper) of the change over boxes (N, ...), float64."""
    library = _library()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            module = library.BoundedModule(
                Difference(dense, pruned).double().eval(), torch.zeros_like(lower[:1]), device="cpu"
            )
            around = library.PerturbationLpNorm(norm=np.inf, x_L=lower, x_U=upper)
            x = library.BoundedTensor((lower + upper) / 2, around)
            low, high = module.compute_bounds(x=(x,), method="CROWN")
        return low.detach(), high.detach()
    finally:
        torch.set_default_dtype(before)

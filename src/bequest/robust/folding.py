"""Batch norms folded into the layers before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

from bequest.graph.geometry import LAYERS, geometry_of
from bequest.graph.reading import Reading
from bequest.graph.rules.norms import epsilon
from bequest.graph.trace import operator_of


def folded(reading: Reading, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the same function with each batch norm folded into the layer before it.

    W̃ = γ/σ·W; the batch norm is left with the mean γ/σ·(μ − b) and the shift β, at scale one.
    A layer is left alone whose output, weight or norm serves anything else.
    """
    result = dict(tensors)
    names = reading.network.tensors
    served = Counter(names.values())
    for norm in reading.network.nodes:
        if reading.roles.get(norm) != "norm" or norm.op != "call_function":
            continue
        layer = norm.args[0]
        if not _foldable(layer):
            continue
        held = [
            names.get(getattr(arg, "name", ""))
            for arg in (*(*layer.args, None)[1:3], *norm.args[1:5])
        ]
        weight, bias, gamma, beta, mean, var = held
        if weight is None or gamma is None or beta is None or mean is None or var is None:
            continue
        if any(name is not None and served[name] > 1 for name in held):
            continue
        scale = tensors[gamma] / (tensors[var] + epsilon(norm)).sqrt()
        # The mean stays apart from the shift: where the scale is large, little is left of the two.
        centre = tensors[mean]
        if bias is not None:
            centre = centre - tensors[bias]
            result[bias] = torch.zeros_like(tensors[bias])
        dim = 1 if geometry_of(layer).transposed else 0
        shape = [-1 if d == dim else 1 for d in range(tensors[weight].ndim)]
        result[weight] = tensors[weight] * scale.view(shape)
        result[gamma], result[mean] = torch.ones_like(scale), centre * scale
        result[var] = torch.full_like(scale, 1 - epsilon(norm))
    return result


def _foldable(layer: Any) -> TypeGuard[fx.Node]:
    """A layer without blocks that feeds nothing but the norm."""
    if not isinstance(layer, fx.Node) or operator_of(layer) not in LAYERS or len(layer.users) > 1:
        return False
    geometry = geometry_of(layer)
    return not geometry.transposed or geometry.groups == 1

"""The layers of a network whose weights can be pruned, by name."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import cast

from torch import Tensor, nn

from bequest.errors import ModelError, UsageError
from bequest.execution.modules import require_module
from bequest.hypersphere.layers import CosineClassifier, Hyperspherical
from bequest.sparse.geometry import Plain, plain_filters
from bequest.sparse.layers import sole_owners

Prunable = Plain | Hyperspherical | CosineClassifier


def prunable(module: nn.Module, skip: Sequence[str] = ()) -> dict[str, Prunable]:
    """The linear and convolution layers, plain or hyperspherical, by qualified name.

    A bare layer has the name "". Left out are subclasses of the plain layers, whose code may use
    the weight in ways of its own (the projections of ``nn.MultiheadAttention``), transposed
    convolutions, and weights that two modules share.

    Args:
        module: a network or a single layer.
        skip: shell patterns of names to leave out.

    Raises:
        UsageError: ``module`` is none, or a pattern matches no layer.
        ModelError: no layer is left.
    """
    require_module(module)
    found = {name: cast(Prunable, layer) for name, layer in sole_owners(module, _filters).items()}
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in found):
            raise UsageError(
                f"skip: the pattern '{pattern}' matches no layer; layers: {', '.join(found)}"
            )
    left = {
        name: layer
        for name, layer in found.items()
        if not any(fnmatchcase(name, pattern) for pattern in skip)
    }
    if not left:
        raise ModelError(
            f"{type(module).__name__} has no layer that can be pruned: expected nn.Linear or "
            "nn.Conv1d to nn.Conv3d whose weight is no other module's"
        )
    return left


def filters(layer: Prunable) -> Tensor:
    """The parameter whose rows are the filters, (out, in/groups, *kernel)."""
    if isinstance(layer, Hyperspherical | CosineClassifier):
        return layer.direction
    return layer.weight


def directions(module: nn.Module, skip: Sequence[str] = ()) -> dict[str, Tensor]:
    """Name → filters of every prunable layer; raises as :func:`prunable` does."""
    return {name: filters(layer) for name, layer in prunable(module, skip).items()}


def _filters(layer: nn.Module) -> Tensor | None:
    if isinstance(layer, Hyperspherical | CosineClassifier):
        return layer.direction
    return plain_filters(layer)

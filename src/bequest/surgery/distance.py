"""How far results of two networks lie apart, and what can't be compared."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

LEAST_SPREAD = 1e-5
"""Relative to its size, what a result must vary by to be measured by its variation."""

RESOLVED = 2**13
"""The same in machine epsilons: of a smaller variation rounding leaves too little."""


class DifferentError(Exception):
    """What a pruned network does otherwise, whatever its numbers are."""


class IncomparableError(Exception):
    """Why inputs tell nothing about a network."""


def compared(wanted: Sequence[Any], found: Sequence[Any]) -> float:
    """The largest relative distance between results.

    Buffers that running the network changes stand before its results in a graph.
    """
    if len(found) > len(wanted):
        raise DifferentError(f"it returns {len(found)} results, planned {len(wanted)}")
    worst = 0.0
    for expected, value in zip(reversed(wanted), reversed(found), strict=False):
        if not isinstance(expected, Tensor) or not isinstance(value, Tensor):
            continue
        if expected.shape != value.shape:
            shapes = f"{tuple(value.shape)}, planned {tuple(expected.shape)}"
            raise DifferentError(f"a result has the shape {shapes}")
        if not bool(expected.isfinite().all()):
            raise IncomparableError("its results on the inputs tried are not finite")
        worst = max(worst, _relative(value, expected))
    return worst


def _relative(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected − mean‖ of real numbers, the mean that over samples.

    Where biases outweigh what inputs say, a result that is quite another can be near in size. Of
    other numbers the share that is not equal.
    """
    if expected.numel() == 0:
        return 0.0
    if not expected.is_floating_point() and not expected.is_complex():
        return float((found != expected).double().mean())
    size = float(expected.norm().double())
    distance = float((found - expected).norm().double())
    if expected.ndim and len(expected) > 1:
        spread = float((expected - expected.mean(0)).norm().double())
        least = max(LEAST_SPREAD, RESOLVED * torch.finfo(expected.dtype).eps)
        size = max(spread, least * size)
    if not isfinite(distance):
        return inf
    return distance / size if size else distance


def joined(one: Any, other: Any) -> Any:
    """Two results of a network as a batch."""
    alike = isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape
    return torch.stack([one, other]) if alike else one

"""The numbers that a network's code computes with, as it runs on tensors without data.

``h / sqrt(h.shape[-1])`` holds a width that no shape shows: at another width the code runs and
computes something else. Every operator's numbers are recorded, in the dense network and in the
pruned one, and compared. Sizes and positions along channels differ as planned and are no part of
it: they show in the shapes of results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bequest.errors import ModelError

MOST = 64
"""Elements of a tensor on the CPU, made by the code, up to which its values are numbers too."""

_COPIES = frozenset({"clone", "alias", "detach", "contiguous", "_to_copy", "lift_fresh"})
_VIEWS = frozenset({"view", "_unsafe_view", "reshape", "_reshape_alias"})
_PLANNED = frozenset(
    "slice split split_with_sizes chunk narrow as_strided convolution native_group_norm "
    "native_layer_norm _fused_rms_norm group_norm unfold unsafe_split unsafe_chunk".split()
)
"""Operators whose whole numbers are sizes or positions that follow the widths."""

Call = tuple[str, tuple[tuple[str, Any], ...]]
"""An operator, and its numbers by the names of its arguments."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators that run inside, copies left out, and the numbers they get.

    Args:
        network: its name, for the message.
        most: how many operators it may run.
        without_data: the network's own tensors have none, so those that do are the code's.

    Attributes:
        calls: operators in the order of execution.

    Raises:
        ModelError: at the first operator above ``most``.
    """

    def __init__(self, network: str, most: int, *, without_data: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.network, self.most = network, most
        self.without_data = without_data
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if name not in _COPIES:
            numbers = tuple(self._numbers(name, func, args, kwargs or {}))
            if len(self.calls) == self.most:
                raise ModelError(
                    f"{self.network}: expected a forward pass of at most {self.most:,} operators, "
                    "found more; tracing unrolls every loop, so give example_inputs with fewer "
                    "steps (a shorter sequence, a smaller image)"
                )
            self.calls.append(("view" if name in _VIEWS else name, numbers))
        return func(*args, **(kwargs or {}))

    def _numbers(
        self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        """Arguments that are numbers to compute with."""
        for position, argument in enumerate(func._schema.arguments):
            given = position < len(args)
            value = args[position] if given else kwargs.get(argument.name)
            if isinstance(value, Tensor):
                made = self.without_data and not value.is_meta and value.numel() <= MOST
                if made:
                    yield argument.name, value.tolist()
            elif isinstance(value, float) or (type(value) is int and not _planned(name, argument)):
                yield argument.name, value


def _planned(name: str, argument: Any) -> bool:
    """Whether a whole number is a size or a position that follows the widths."""
    return name in _PLANNED and "int" in str(argument.type).lower()


def same_operators(dense: Sequence[Call], pruned: Sequence[Call]) -> bool:
    """Whether two runs are of the same operators."""
    return [name for name, _ in dense] == [name for name, _ in pruned]


def difference(dense: Sequence[Call], pruned: Sequence[Call]) -> str | None:
    """The first operator that computes with another number in the pruned network, in words.

    Args:
        dense: the operators of the dense network.
        pruned: the same operators in the pruned one.
    """
    for (name, before), (_, after) in zip(dense, pruned, strict=True):
        for (argument, one), (_, other) in zip(before, after, strict=False):
            if not _same(one, other):
                return (
                    f"{name} computes with {argument} = {_shown(other)} where the dense network "
                    f"has {_shown(one)}: the number follows the width"
                )
    return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)[:60]

"""What a rule is that maps intervals, and for which operators there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from bequest.robust.intervals import Interval

Result = Interval | tuple[Interval, ...]


class Rule(NamedTuple):
    """An operator's two functions; operands that are no tensors are passed as they are."""

    value: Callable[..., Result]
    """(node, *operands) with Interval or Tensor operands."""
    change: Callable[..., Result]
    """(node, *operands) with Twin or Weights operands."""
    exact: bool = False
    """Whether all operands but the first must be known numbers, as weights are."""


RULES: dict[str, Rule] = {}
"""Operator → its rule, unless it is a function of one element: ``elementwise.py``."""

PAIRS: dict[str, Rule] = {}
"""Operator that has a rule for two tensors, and for one is such a function → that rule."""


def file(rule: Rule, operators: str) -> None:
    """Files a rule for ATen operators, named between spaces.

    Raises:
        ValueError: one of them has another rule.
    """
    if taken := RULES.keys() & set(operators.split()):
        raise ValueError(f"{', '.join(sorted(taken))}: expected operators without an interval rule")
    RULES.update(dict.fromkeys(operators.split(), rule))


def per_candidate(node: fx.Node, operator: Callable[..., Any], x: Tensor) -> Any:
    """``operator`` of the first operand's values, or of every candidate's."""
    rank = node.args[0].meta["val"].ndim  # type: ignore[union-attr]
    return torch.vmap(operator)(x) if x.ndim > rank else operator(x)


def as_result(node: fx.Node, first: Interval) -> Result:
    """Alone, or as the first of several results."""
    return (first,) if isinstance(node.meta["val"], tuple | list) else first


def as_interval(x: Interval | Tensor) -> Interval:
    """A known number as the interval that holds nothing else."""
    return Interval(x, x) if isinstance(x, Tensor) else x

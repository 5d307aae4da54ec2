"""Functions of one element: ranges and slopes of :mod:`bequest.robust.curves`."""

from __future__ import annotations

from typing import Any

from torch import fx

from bequest.robust import curves
from bequest.robust.intervals import Interval
from bequest.robust.rules.base import Result, Rule, as_result
from bequest.robust.twins import Twin


def _function_value(node: fx.Node, *operands: Any) -> Result:
    x = next(one for one in operands if isinstance(one, Interval))
    return as_result(node, curves.image(node, x))


def _function_change(node: fx.Node, *operands: Any) -> Result:
    x = next(one for one in operands if isinstance(one, Twin))
    if curves.jumps(node):
        return as_result(node, curves.image(node, x.second) - curves.image(node, x.first))
    steepness = curves.slopes(node, x.first.hull(x.second))
    found = x.difference * steepness
    jump = curves.jump(node)
    return as_result(node, found.widened(jump) if jump else found)


ELEMENTWISE = Rule(_function_value, _function_change)

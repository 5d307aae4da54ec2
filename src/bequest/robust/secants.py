"""What candidates do to the output on average: the linear part of what back-substitution bounds.

Between its lines every function of one element is taken for its chord, and the outputs for what
they make of a unit change. That is no bound, as what the chords lose is left out, but it ranks
candidates by what they do and not by how far it can be bounded.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from bequest.robust import curves
from bequest.robust.bent import Bent
from bequest.robust.impact import Values
from bequest.robust.intervals import Interval
from bequest.robust.lines import Line, Lines
from bequest.robust.rows import Rows
from bequest.robust.substitution import Pair
from bequest.robust.twins import Twin, Weights


class Secants(Pair):
    """A network whose functions of one element are their chords over the input range.

    Args:
        held: its values.
    """

    def __init__(self, held: Values) -> None:
        super().__init__(held.network.nodes, {one: _boxed(v) for one, v in held.known.items()})

    def _found(self, node: fx.Node) -> Any:
        form = super()._found(node)
        if isinstance(form, Bent):
            line = _chord(node, form.twin.first)
            form.first = Lines(line, line)
        return form

    def ranges(self, node: fx.Node, rows: Tensor) -> Interval:
        """What rows·(value of a node) can be over the input range, (rows,).

        Args:
            node: its value is one vector, (1, n).
            rows: (rows, n).
        """
        ones = rows[:, None, None]
        upper, lower = (self.upper_bound(node, Rows(sign * ones))[:, 0] for sign in (1, -1))
        return Interval(-lower, upper)


def _chord(node: fx.Node, x: Interval) -> Line:
    low, high = curves.apply(node, x.lower), curves.apply(node, x.upper)
    slope = ((high - low) / (x.upper - x.lower)).nan_to_num(0.0, 0.0, 0.0)
    return Line(slope, (low + high) / 2 - slope * x.centre)


def _boxed(value: Any) -> Any:
    """What is known of a value, as of one in two networks that are the same, in one box."""
    if isinstance(value, tuple):
        return tuple(None if one is None else _boxed(one) for one in value)
    if isinstance(value, Tensor):
        return Weights(value, value)
    if not isinstance(value, Interval):
        return value
    box = Interval(value.lower[None], value.upper[None])
    return Twin(box, box, None)

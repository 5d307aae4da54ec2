"""How intervals pass the operators of the traced graph, for one network and for a pair of them.

Each operator with a rule has two functions. ``value`` maps the intervals of its operands to that of
its result. ``change`` looks at two networks of one shape and maps what is known of both, and of the
difference between them, to the difference of the results: tighter than subtracting the two
results, because both networks compute the same function of nearly the same numbers.

Parameters are exact tensors. Differences may have one more dimension in front: as many candidates
are looked at in one pass. Where no operand differs, no rule is asked: the result is the same.
"""

from torch import fx

from bequest.config import discover
from bequest.graph.geometry import arguments
from bequest.graph.trace import operator_of
from bequest.robust import curves
from bequest.robust.rules.base import PAIRS, RULES, Rule
from bequest.robust.rules.elementwise import ELEMENTWISE

__all__ = ["Rule", "rule_of"]

discover(__name__, __path__)


def rule_of(node: fx.Node) -> Rule | None:
    """The operator's rule; None where it has none."""
    name = operator_of(node)
    if name in RULES:
        given = arguments(node)
        return None if given.get("training") or given.get("train") else RULES[name]
    operands = sum(isinstance(operand, fx.Node) for operand in node.args)
    if max(operands, len(node.all_input_nodes)) > 1:
        return PAIRS.get(name)
    return ELEMENTWISE if curves.has_curve(node) else None

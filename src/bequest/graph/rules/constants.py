"""Rules for tensors that the network's code makes."""

from __future__ import annotations

from typing import Any

from torch import fx

from bequest.graph.ledger import Layout
from bequest.graph.rules.base import Step, rule
from bequest.graph.rules.widths import Narrowed, widths

_UNIFORM = "zeros ones full empty".split()
_UNIFORM_LIKE = "new_zeros new_ones new_full new_empty".split()


@rule("arange", "linspace", "eye", "scalar_tensor", "tril_indices", "triu_indices", role="join")
def constant(step: Step) -> Layout:
    """A tensor whose numbers differ from place to place has the size that stands in the code."""
    step.ignore(step.operands())
    return step.fixed()


@rule(*_UNIFORM, *_UNIFORM_LIKE, role="join")
def uniform(step: Step) -> Layout:
    """One number everywhere: as many of it as there are channels that it meets.

    Its size is a constant in the code, which the model's own class may not let follow.
    """
    step.ignore(step.operands())
    return step.fixed().with_dims(
        step.ledger.loose(size) if size > 1 else None for size in step.shape
    )


@widths(*_UNIFORM)
def size(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """The size."""
    return {0: narrowed.shape(node)}


@widths(*_UNIFORM_LIKE)
def size_beside_another(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """The size, behind the tensor that lends its type."""
    return {1: narrowed.shape(node)}

"""What a layer of the pruned network should write: the dense output, and what its branch lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx

from bequest.calibration.layers import Call
from bequest.calibration.spill import Mapped
from bequest.calibration.walk import Walk
from bequest.graph.trace import operator_of


class Branch(NamedTuple):
    """What a layer's output is added to, where the pruned stream carries an error there.

    Attributes:
        dense: by chunk, without the channels that leave.
        pruned: by chunk.
        scale: γ/σ of the batch norm between the layer and the sum, shaped like the output; or None.
    """

    dense: Sequence[Tensor]
    pruned: Sequence[Tensor]
    scale: Tensor | None


def branch(walk: Walk, call: Call) -> Branch | None:
    """The branch that the call's output is added to; None: there's none, or none in error (yet)."""
    found = _added_to(walk, call.node)
    missing = None if found is None else walk.difference(found[0])
    if found is None or missing is None or missing[0].shape != call.dense[0].shape:
        return None
    dense, pruned = walk.values(found[0])
    if found[1] is None:
        return Branch(dense, pruned, None)
    return Branch(dense, pruned, scale_of(walk, found[1], call))


def scale_of(walk: Walk, norm: fx.Node, call: Call) -> Tensor:
    """γ/σ of a batch norm that a call's output goes to, shaped like that output."""
    scale = walk.norm_scale(norm, call.node)
    return scale.view([-1 if d == 1 else 1 for d in range(call.dense[0].ndim)])


def wanted(walk: Walk, call: Call) -> Sequence[Tensor]:
    """By chunk y + r: the dense output and the error of the branch that it is added to.

    r is dense minus pruned value of the other branch, over the γ/σ of the batch norm between (if
    there is one), so that y + r − ŷ is the error of the sum, in units before the batch norm. |γ/σ|
    is kept from zero: a channel that the norm all but shuts can't make up for anything.
    """
    other = branch(walk, call)
    if other is None:
        return call.dense
    size = len(call.dense)
    if other.scale is None:
        return Mapped(lambda i: call.dense[i] + (other.dense[i] - other.pruned[i]), size)
    least = SHUT * other.scale.abs().mean()
    sign = torch.where(other.scale < 0, -1.0, 1.0).to(other.scale)
    inverse = sign / other.scale.abs().clamp(min=least)
    return Mapped(
        lambda i: torch.addcmul(call.dense[i], other.dense[i] - other.pruned[i], inverse), size
    )


SHUT = 0.05
"""Share of the mean size of these scales under which none of them counts."""


def _added_to(walk: Walk, node: fx.Node) -> tuple[fx.Node, fx.Node | None] | None:
    """The other operand of the addition that the node's output goes to, and the norm between."""
    norm: fx.Node | None = None
    while len(node.users) == 1:
        (user,) = node.users
        if walk.reading.roles.get(user) == "norm" and norm is None:
            norm = user
        elif _adds(user):
            (partner,) = (value for value in user.all_input_nodes if value is not node)
            return partner, norm
        elif operator_of(user) not in ("getitem", "clone", "alias"):
            return None
        node = user
    return None


def _adds(node: fx.Node) -> bool:
    """Whether an operator is the plain sum of two values, none of them scaled."""
    return operator_of(node) == "add" and len(node.all_input_nodes) == 2 and not node.kwargs

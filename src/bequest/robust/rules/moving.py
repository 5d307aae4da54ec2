"""Operators that move, copy or join elements, or pad with a number."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from torch import Tensor, fx

from bequest.graph.geometry import arguments
from bequest.graph.trace import operator_of
from bequest.robust.intervals import Interval
from bequest.robust.rules.base import Result, Rule, as_interval, as_result, file, per_candidate


def _moved(node: fx.Node, x: Interval, rest: tuple[Any, ...]) -> Result:
    """Every entry of the result is one of the operand."""

    def operator(values: Tensor) -> Any:
        if operator_of(node) in ("view", "_unsafe_view"):  # whose strides are others here
            return values.reshape(*rest)
        return node.target(values, *rest, **node.kwargs)  # type: ignore[operator]

    lower, upper = (per_candidate(node, operator, end) for end in (x.lower, x.upper))
    if isinstance(lower, Tensor):
        return Interval.known(lower, upper)
    return tuple(Interval.known(*ends) for ends in zip(lower, upper, strict=True))


def _copied(node: fx.Node, x: Any, *_: Any) -> Result:
    return as_result(node, x if isinstance(x, Interval) else x.difference)


def _joined(node: fx.Node, parts: list[Interval], rest: tuple[Any, ...]) -> Result:
    def operator(*values: Tensor) -> Tensor:
        made: Tensor = node.target(list(values), *rest, **node.kwargs)  # type: ignore[operator]
        return made

    shapes = [one.meta["val"].ndim for one in node.args[0]]  # type: ignore[union-attr]
    dims = tuple(
        0 if part.lower.ndim > rank else None for part, rank in zip(parts, shapes, strict=True)
    )
    if any(dim == 0 for dim in dims):
        operator = torch.vmap(operator, in_dims=dims)
    return Interval.known(
        operator(*(part.lower for part in parts)), operator(*(part.upper for part in parts))
    )


def _padded(node: fx.Node, x: Interval, amounts: Any, value: float) -> Result:
    if arguments(node).get("mode", "constant") != "constant":
        return _moved(node, x, tuple(node.args[1:]))
    return x.mapped(
        lambda end: per_candidate(node, lambda one: F.pad(one, list(amounts), value=value), end)
    )


file(
    Rule(
        lambda node, x, *rest: _moved(node, x, rest),
        lambda node, x, *rest: _moved(node, x.difference, rest),
    ),
    "view _unsafe_view reshape flatten unflatten permute transpose t movedim swapaxes unsqueeze "
    "squeeze expand slice select split split_with_sizes chunk upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d reflection_pad1d reflection_pad2d replication_pad1d "
    "replication_pad2d",
)
file(
    Rule(_copied, _copied),
    "clone alias detach contiguous dropout native_dropout lift_fresh_copy lift_fresh positive",
)
file(
    Rule(
        lambda node, parts, *rest: _joined(node, [as_interval(part) for part in parts], rest),
        lambda node, parts, *rest: _joined(node, [part.difference for part in parts], rest),
    ),
    "cat stack",
)
file(
    Rule(
        lambda node, x, amounts, *_: _padded(
            node, x, amounts, float(arguments(node)["value"] or 0)
        ),
        lambda node, x, amounts, *_: _padded(node, x.difference, amounts, 0.0),
    ),
    "pad constant_pad_nd",
)

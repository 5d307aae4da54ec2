"""Operators that are affine in what they read: z = L·x + k, and L transposed for rows.

L is whatever autograd makes of the operator itself, so that nothing has to be written down of an
operator but that it is affine and how its rounding grows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, fx

from bequest.graph.geometry import LAYERS
from bequest.graph.trace import function_of, operator_of
from bequest.robust.intervals import STEP, summing
from bequest.robust.rows import Handed, Rows, along
from bequest.robust.rules.layers import norm_factors
from bequest.robust.twins import Twin, Weights

Side = Literal["first", "second"]
"""Whose weights."""
SIDES: tuple[Side, Side] = ("first", "second")

_NORMS = frozenset({"batch_norm", "_native_batch_norm_legit_no_training"})
MOVES = frozenset(
    "view _unsafe_view reshape flatten unflatten permute transpose t movedim swapaxes unsqueeze "
    "squeeze expand slice select split split_with_sizes chunk upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d reflection_pad1d reflection_pad2d replication_pad1d "
    "replication_pad2d clone alias detach contiguous dropout native_dropout lift_fresh_copy "
    "lift_fresh positive cat stack pad constant_pad_nd".split()
)
"""Operators whose results are copies of what is read, and constants."""

_MEANS = frozenset(
    "mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "_adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d upsample_linear1d "
    "upsample_bilinear2d upsample_trilinear3d".split()
)
_SUMS = frozenset({"add", "sub", "rsub"})
_SCALES = frozenset({"mul", "div", "neg"})


class Affine:
    """One operator as an affine function of what it reads, in each of two networks.

    Args:
        node: the operator.
        values: node → Twin of what is read, (boxes, *shape), or Weights.
    """

    def __init__(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> None:
        self.node, self.name = node, operator_of(node)
        self.values = values
        self.reads = tuple(one for one in node.all_input_nodes if isinstance(values[one], Twin))
        self.twins: list[Twin] = [values[one] for one in self.reads]
        held = [values[one] for one in node.all_input_nodes if isinstance(values[one], Weights)]
        self.reweighted = any(one.change is not None for one in held)
        self.device = self.twins[0].first.lower.device

    @classmethod
    def of(cls, node: fx.Node, values: Mapping[fx.Node, Any]) -> Affine | None:
        """None where the operator isn't affine in everything that it reads."""
        name, held = operator_of(node), [values.get(one) for one in node.all_input_nodes]
        read = [isinstance(one, Twin) for one in held]
        if not any(read) or not all(isinstance(one, Twin | Weights) for one in held):
            return None
        if name in LAYERS or name in _NORMS:
            affine = read[0] and not any(read[1:])
        elif name in _SCALES:
            divides = name == "div" and not isinstance(values.get(node.args[0]), Twin)  # type: ignore[arg-type]
            affine = read.count(True) == 1 and not divides
            affine = affine and len(set(node.args)) > 1 - (name == "neg")
            affine = affine and not node.kwargs.get("rounding_mode")
        else:
            affine = name in MOVES | _MEANS | _SUMS
        return cls(node, values) if affine else None

    def handed(self, held: Mapping[int | None, Rows]) -> Handed:
        """Rows of the result (by its place, where there are several) as rows of what is read.

        A·z + D·Δ = (A·L + D·(L′ − L))·x + D·L′·Δx + A·k + D·(k′ − k).
        """
        A = self._whole({place: one.first for place, one in held.items()})
        D = self._whole({p: one.change for p, one in held.items() if one.change is not None})
        onto = self._transposed("first", A)
        total = _summed(A, self._constants["first"], self._slack)
        if D is None:
            return [(node, Rows(one)) for node, one in zip(self.reads, onto, strict=True)], total
        total = total + _summed(D, self._grown, self._slack_of_change)
        if self.reweighted:
            onto = [a + d for a, d in zip(onto, self._difference(D), strict=True)]
        back = onto  # not read where nothing that is read differs
        if self._changes:
            back = self._transposed("second", D)
        found = []
        for node, twin, a, d in zip(self.reads, self.twins, onto, back, strict=True):
            found.append((node, Rows(a, None if twin.change is None else d)))
        return found, total

    def _whole(self, parts: Mapping[int | None, Tensor]) -> Any:
        """One tensor, or a tuple with zeros in the place of results that nobody reads."""
        if not parts or None in parts:
            return parts.get(None)
        shapes = self.node.meta["val"]
        if self.name in _NORMS or self.name == "native_dropout":
            return parts[0]
        like = next(iter(parts.values()))
        zeros = (like.new_zeros(*like.shape[:2], *one.shape) for one in shapes)
        return tuple(parts.get(place, zero) for place, zero in enumerate(zeros))

    def _apply(self, side: Side, *read: Tensor) -> Any:
        """The operator on other values, without boxes."""
        given = dict(zip(self.reads, read, strict=True))

        def pick(one: Any) -> Any:
            if not isinstance(one, fx.Node):
                return one
            return given[one] if one in given else getattr(self.values[one], side)

        args: Any = fx.node.map_aggregate(self.node.args, pick)
        if self.name in _NORMS:
            scale, mean, beta = norm_factors(self.node, *args[1:5])
            return scale * (args[0] - mean) + beta
        kwargs = {name: value for name, value in self.node.kwargs.items() if name != "dtype"}
        made = function_of(self.node)(*args, **kwargs)
        return made[0] if self.name == "native_dropout" else made

    def _layer(self, x: Tensor, weight: Tensor) -> Any:
        rest = self.node.args[3:]
        return function_of(self.node)(x, weight, None, *rest, **self.node.kwargs)

    def _weight(self, side: Side) -> Tensor:
        weight: Tensor = getattr(self.values[self.node.args[1]], side)  # type: ignore[index]
        return weight

    def _transposed(self, side: Side, rows: Any) -> list[Tensor]:
        if self.name == "linear":
            return [self._matrices[side](rows)]
        return self._pulled(lambda *read: self._apply(side, *read), rows)

    def _difference(self, rows: Any) -> list[Tensor]:
        """By L′ − L."""
        if self.name == "linear":
            return [self._matrices["change"](rows)]
        if self.name in LAYERS:
            weight = self._weight("second") - self._weight("first")
            return self._pulled(lambda x: self._layer(x, weight), rows)
        ends = zip(self._transposed("first", rows), self._transposed("second", rows), strict=True)
        return [later - before for before, later in ends]

    def _pulled(self, function: Callable[..., Any], rows: Any) -> list[Tensor]:
        parts = _several(rows)
        lead = len(parts[0]), max(one.shape[1] for one in parts)
        flat = tuple(one.expand(*lead, *one.shape[2:]).flatten(0, 1) for one in parts)
        _, *pull = torch.func.vjp(lambda *read: _several(function(*read)), *self._zeros)
        found = torch.func.vmap(pull[0])(flat)
        return [one.unflatten(0, lead) for one in found]

    @property
    def _zeros(self) -> list[Tensor]:
        shapes = [one.meta["val"].shape for one in self.reads]
        return [torch.zeros(one, dtype=torch.float64, device=self.device) for one in shapes]

    @cached_property
    def _changes(self) -> bool:
        """Whether anything that is read differs."""
        return any(twin.change is not None for twin in self.twins)

    @cached_property
    def _matrices(self) -> Mapping[str, _Matrix]:
        first, second = self._weight("first"), self._weight("second")
        return {
            "first": _Matrix(first),
            "second": _Matrix(second),
            "change": _Matrix(second - first),
        }

    @cached_property
    def _constants(self) -> Mapping[Side, tuple[Tensor, ...]]:
        """k: what the operator makes of zeros, (1, *shape)."""
        found: dict[Side, tuple[Tensor, ...]] = {}
        for side in SIDES:
            found[side] = tuple(one[None] for one in _several(self._apply(side, *self._zeros)))
        return found

    @cached_property
    def _grown(self) -> tuple[Tensor, ...]:
        """k′ − k."""
        ends = zip(self._constants["first"], self._constants["second"], strict=True)
        return tuple(later - before for before, later in ends)

    def _doubt(self, side: Side) -> tuple[Tensor, ...]:
        """How far k can be off by rounding."""
        if self.name not in _NORMS:
            return tuple(one.abs() * STEP for one in self._constants[side])
        held = (getattr(self.values.get(one), side, None) for one in self.node.args[1:5])  # type: ignore[arg-type]
        scale, mean, beta = norm_factors(self.node, *held)  # type: ignore[arg-type]
        like = self._constants[side][0]
        return (((scale * mean).abs() + beta.abs()).expand_as(like) * 4 * STEP,)

    @cached_property
    def _slack(self) -> tuple[Tensor, ...]:
        """What A·(L·x + k) can be off by rounding, for each entry of |A|."""
        known = zip(self._constants["first"], self._doubt("first"), strict=True)
        kept = [summing(k[0].numel()) * k.abs() + off for k, off in known]
        return tuple(map(torch.add, kept, self._spread("first", "first")))

    @cached_property
    def _slack_of_change(self) -> tuple[Tensor, ...]:
        """The same of D·((L′ − L)·x + L′·Δx + k′ − k)."""
        total = [summing(k[0].numel()) * k.abs() for k in self._grown]
        parts: list[Sequence[Tensor]] = []
        if self.reweighted:
            parts += [self._spread(side, "first") for side in SIDES]
            parts += [self._doubt(side) for side in SIDES]
        if self._changes:
            parts.append(self._spread("second", "difference"))
        return tuple(sum(each) for each in zip(total, *parts, strict=True))

    def _spread(self, side: Side, of: str) -> Sequence[Tensor]:
        """|L|·|x| times what rounding is of that: how far transposing rows can be off, each."""
        sizes = [getattr(twin, of).magnitude for twin in self.twins]
        reach = torch.func.vmap(lambda *read: _several(self._reach(side, *read)))(*sizes)
        return [one.abs() * 2 * summing(self._terms) for one in reach]

    def _reach(self, side: Any, *read: Tensor) -> Any:
        """|L|·|x| of sizes |x|."""
        if self.name in LAYERS:
            return self._layer(read[0], self._weight(side).abs())
        if self.name in _SUMS:
            factor = 1 + abs(float(self.node.kwargs.get("alpha", 1)))  # type: ignore[arg-type]
            whole: Tensor = sum(read) * factor  # type: ignore[assignment]
            return whole.expand(self.node.meta["val"].shape)
        ends = zip(_several(self._apply(side, *read)), self._constants[side], strict=True)
        return tuple(one - k[0] for one, k in ends)

    @property
    def _terms(self) -> float:
        """How many products are added up, in either direction."""
        if self.name in LAYERS:
            shape = self._weight("first").shape
            return shape.numel() / max(1, min(shape[:2]))
        sizes: list[int] = [one.meta["val"].numel() for one in self.reads]
        if self.name in _MEANS:
            return float(max(sizes))
        made = self.node.meta["val"]
        made = made[0] if isinstance(made, tuple | list) else made
        return max(4.0, int(made.numel()) / max(1, min(sizes)))  # what is read in many places


def _several(value: Any) -> tuple[Tensor, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _summed(rows: Any, values: Sequence[Tensor], slack: Sequence[Tensor]) -> Any:
    """At least Σ rows·values over the results."""
    return sum(map(along, _several(rows), values, slack))


class _Matrix:
    """Rows times a matrix, less its rows of zeros: channels that left, layers that stayed."""

    def __init__(self, weight: Tensor) -> None:
        there = weight.any(1)
        self._there = None if there.all() else there.nonzero()[:, 0]
        self._weight = weight if self._there is None else weight[self._there]

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows if self._there is None else rows[..., self._there]) @ self._weight

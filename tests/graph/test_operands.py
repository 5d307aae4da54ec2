"""Operators with several tensors: what one of them loses, the others lose too, or none does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bequest.graph.groups import group
from bequest.graph.reading import Reading
from bequest.graph.rules import read
from bequest.graph.trace import trace
from tests.graph.masking import masked, plainly

WIDTH = 12
Between = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Joined(nn.Module):
    """Two layers, a parameter and a fixed buffer meet in an operator that a third layer reads."""

    def __init__(self, between: Between, out: int = WIDTH) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, WIDTH), nn.Linear(6, WIDTH)
        self.own = nn.Parameter(torch.randn(WIDTH))
        self.head = nn.Linear(out, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        fixed = torch.linspace(-1, 1, WIDTH).to(x)
        return self.head(self.between(self.left(x), self.right(x), self.own, fixed))


TIED: dict[str, Between] = {
    "rolled along channels": lambda a, b, p, f: a.roll(1, 1) + b,
    "flipped along channels": lambda a, b, p, f: a.flip(1) + b,
    "parts of unequal size": lambda a, b, p, f: torch.cat(a.split(5, 1)[::-1], 1) + b,
    "clamp, both bounds": lambda a, b, p, f: torch.clamp(a, min=b, max=b + 1),
    "clamp, upper bound": lambda a, b, p, f: a.clamp(max=b),
    "clamp, parameter": lambda a, b, p, f: a.clamp(min=p) + b,
    "clamp_min": lambda a, b, p, f: torch.clamp_min(a, b),
    "clamp_max": lambda a, b, p, f: torch.clamp_max(a, p) * b,
    "clamp, a number and a tensor": lambda a, b, p, f: b + torch.clamp(a, max=p.new_tensor(0.3)),
    "max of two": lambda a, b, p, f: torch.max(a, b),
    "min of two": lambda a, b, p, f: torch.min(a, p) + b,
    "maximum": lambda a, b, p, f: torch.maximum(a, p) - b,
    "minimum": lambda a, b, p, f: torch.minimum(b, a),
    "where, two branches": lambda a, b, p, f: torch.where(a > 0, a, b),
    "where, mask of the other": lambda a, b, p, f: torch.where(b > 0, a, 0.5),
    "where, number first": lambda a, b, p, f: torch.where(a > p, 0.1, b),
    "where, parameter": lambda a, b, p, f: torch.where(a > b, p, a),
    "masked_fill": lambda a, b, p, f: a.masked_fill(b > 0, 0.25),
    "masked_fill, tensor": lambda a, b, p, f: a.masked_fill(b > p, p.new_tensor(0.5)),
    "lerp, tensor": lambda a, b, p, f: torch.lerp(a, b, p),
    "lerp, number": lambda a, b, p, f: torch.lerp(a, b, 0.3),
    "addcmul": lambda a, b, p, f: torch.addcmul(a, b, p, value=0.5),
    "addcdiv": lambda a, b, p, f: torch.addcdiv(a, b, p.abs() + 1),
    "pow": lambda a, b, p, f: a.abs().add(0.1).pow(b),
    "number to the power": lambda a, b, p, f: torch.pow(2.0, a) * b,
    "atan2": lambda a, b, p, f: torch.atan2(a, b),
    "hypot": lambda a, b, p, f: torch.hypot(a, p) * b,
    "xlogy": lambda a, b, p, f: torch.xlogy(a, b.abs() + 0.1),
    "remainder": lambda a, b, p, f: torch.remainder(a, b),
    "division, rounded": lambda a, b, p, f: torch.div(a, b, rounding_mode="floor"),
    "rsub": lambda a, b, p, f: torch.rsub(a, b),
    "added with a factor": lambda a, b, p, f: torch.add(a, b, alpha=0.5),
    "comparison": lambda a, b, p, f: (a > b).to(a) + a,
    "a type lent": lambda a, b, p, f: a.type_as(b) + b.to(a),
    "copied into": lambda a, b, p, f: a.clone().copy_(b) + a,
    "filled": lambda a, b, p, f: torch.full_like(a, 0.5) * b + a,
    "prelu, a slope each": lambda a, b, p, f: F.prelu(a, p) + b,
    "stacked": lambda a, b, p, f: torch.stack([a, b, p.expand_as(a)]).mean(0),
    "batch norm of computed scale": lambda a, b, p, f: (
        F.batch_norm(a, p.detach() * 0, p.detach().abs() + 1, p * 0.5 + 1, p) + b
    ),
    "outer dimensions lacking": lambda a, b, p, f: (a[None] + b) * p,
    "einsum, each alone": lambda a, b, p, f: torch.einsum("nc,c,nc->nc", a, p, b),
    "glu": lambda a, b, p, f: F.glu(torch.cat([a, b], 1)),
    "random by a tensor": lambda a, b, p, f: torch.bernoulli(torch.ones_like(a) + 0 * b) * a,
}
"""All channels of ``left`` and ``right`` can leave, pair by pair."""

HELD: dict[str, Between] = {
    "difference along samples": lambda a, b, p, f: torch.diff(a, dim=0, append=b[:1]),
    "clamp by what is fixed": lambda a, b, p, f: a.clamp(max=f) + 0 * b,
    "max with what is fixed": lambda a, b, p, f: torch.max(f, a) + b,
    "where with what is fixed": lambda a, b, p, f: torch.where(f > 0, a, b),
    "prelu with fixed slopes": lambda a, b, p, f: F.prelu(a, f) + b,
    "batch norm with fixed statistics": lambda a, b, p, f: F.batch_norm(a, f, f.abs() + 1) + b,
    "difference along channels": lambda a, b, p, f: torch.diff(a, dim=1, prepend=b[:, :1]) + b,
    "sorted along channels": lambda a, b, p, f: a.sort(1).values + b,
    "rolled whole": lambda a, b, p, f: a.roll(3) + b,
    "sums along channels": lambda a, b, p, f: a.cumsum(1) + b,
    "softmax over channels": lambda a, b, p, f: a.softmax(1) + b,
    "largest, with places": lambda a, b, p, f: a * a.max(1, keepdim=True).values + b,
    "cropped": lambda a, b, p, f: F.pad(a, (-2, 2)) + b,
    "padded with neighbours": lambda a, b, p, f: (
        F.pad(a[:, None], (2, 2), mode="circular")[:, 0, 2:-2] + b
    ),
}
"""No channel can leave, as those of ``left`` depend on each other or on fixed ones."""


def prepared(between: Between) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Joined(between).double().eval(), torch.randn(5, 6).double()


@pytest.mark.parametrize("name", TIED)
def test_what_leaves_one_operand_leaves_all(name):
    model, x = prepared(TIED[name])
    channels = group(read(trace(model, x)))
    require_single_operands(channels.reading)
    pruned = plainly(model, x)
    left, right = (pruned.model.get_submodule(side).weight for side in ("left", "right"))
    assert left.shape == right.shape == (WIDTH // 2, 6)
    torch.testing.assert_close(pruned.model(x), masked(model, x, pruned, channels)(x))


@pytest.mark.parametrize("name", HELD)
def test_channels_that_depend_on_others_stay(name):
    model, x = prepared(HELD[name])
    channels = group(read(trace(model, x)))
    require_single_operands(channels.reading)
    left = next(member for member in channels.groups if "left" in member.layers)
    assert left.free == 0
    assert left.reasons


def test_channels_that_are_taken_in_steps_leave_in_runs():
    model, x = prepared(lambda a, b, p, f: torch.cat([a[:, ::2], a[:, 1::2]], 1) + b)
    channels = group(read(trace(model, x)))
    pruned = plainly(model, x)
    assert 0 < len(pruned.model.left.weight) < WIDTH
    torch.testing.assert_close(pruned.model(x), masked(model, x, pruned, channels)(x))


def require_single_operands(reading: Reading) -> None:
    """An activation reads one tensor: restorers in weight space apply it to numbers of one."""
    for node, role in reading.roles.items():
        if role == "activation":
            tensors = [one for one in node.all_input_nodes if one.meta["val"].numel() > 1]
            assert len(tensors) == 1, f"{node.target} reads {tensors}"

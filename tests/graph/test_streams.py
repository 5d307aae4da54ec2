"""A stream is where several layers write; x + f(x) of one layer is a function of its elements."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest.graph.chains import bind
from bequest.graph.groups import Group, group
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace

Function = Callable[[Tensor, "Mlp"], Tensor]


class Mlp(nn.Module):
    """Two layers with a function between them that may have numbers of its own."""

    def __init__(self, between: Function, width: int = 12) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, width), nn.Linear(width, 3)
        self.other = nn.Linear(5, width)
        self.slope = nn.Parameter(torch.tensor([0.7]))
        self.slopes = nn.Parameter(torch.rand(width) + 0.5)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return self.down(self.between(self.up(x), self))


def tanh_gelu(h: Tensor, _: Mlp) -> Tensor:
    """As transformers' GPT-2 and Phi write it."""
    inner = math.sqrt(2 / math.pi) * (h + 0.044715 * torch.pow(h, 3.0))
    return 0.5 * h * (1.0 + torch.tanh(inner))


def behind_a_view(h: Tensor, _: Mlp) -> Tensor:
    h = h[None]
    return (h + h.relu()).squeeze(0)


FUNCTIONS: dict[str, tuple[Function, Callable[[Tensor], Tensor]]] = {
    "gelu": (tanh_gelu, lambda x: F.gelu(x, approximate="tanh")),
    "mish": (lambda h, m: h * torch.tanh(F.softplus(h)), F.mish),
    "swish": (lambda h, m: h * h.sigmoid(), F.silu),
    "snake": (lambda h, m: h + torch.sin(h).square(), lambda x: x + x.sin() ** 2),
    "snake of its own frequency": (
        lambda h, m: h + (m.slope * h).sin().square() / m.slope,
        lambda x: x + (0.7 * x).sin() ** 2 / 0.7,
    ),
    "leaky": (lambda h, m: h + h.relu(), lambda x: x + x.relu()),
    "squared": (lambda h, m: h * h, torch.square),
    "constant branch": (lambda h, m: h.sigmoid() + m.slope * 2, lambda x: x.sigmoid() + 1.4),
    "other types between": (lambda h, m: (h.double() * h.relu()).to(h), lambda x: x * x.relu()),
    "behind a view": (behind_a_view, lambda x: x + x.relu()),
}


def groups_of(model: nn.Module, x: Tensor) -> dict[str, Group]:
    return {one.name: one for one in group(read(trace(model, x))).groups}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_written_out_is_an_activation(name):
    between, plain = FUNCTIONS[name]
    torch.manual_seed(0)
    model, x = Mlp(between).eval(), torch.randn(4, 5)
    channels = group(read(trace(model, x)))
    inner = next(one for one in channels.groups if one.name == "up")
    assert inner.kind == "inner"
    unit = bind(channels, inner, named_tensors(model)).unit
    assert unit.obstacle is None
    values = torch.linspace(-3, 3, 50, dtype=torch.float64)
    torch.testing.assert_close(unit.activation.apply(values), plain(values))
    assert unit.activation.homogeneous == (name in ("leaky", "behind a view"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_duplicates_are_handed_on_exactly(name):
    torch.manual_seed(1)
    model, x = Mlp(FUNCTIONS[name][0]).eval(), torch.randn(16, 5)
    with torch.no_grad():
        model.up.weight[6:], model.up.bias[6:] = model.up.weight[:6], model.up.bias[:6]
    pruned = bequest.prune(model, x, 0.5, restorer="lbyl", criterion="redundancy", round_to=1)
    (one,) = pruned.report.groups
    assert one.restored_by == "lbyl"
    torch.testing.assert_close(pruned.model(x), model(x), atol=1e-5, rtol=1e-4)


def test_multiples_go_through_what_keeps_them():
    torch.manual_seed(1)
    model, x = Mlp(FUNCTIONS["leaky"][0]).eval(), torch.randn(16, 5)
    with torch.no_grad():
        model.up.weight[6:], model.up.bias[6:] = 2 * model.up.weight[:6], 2 * model.up.bias[:6]
    pruned = bequest.prune(model, x, 0.5, restorer="merge", criterion="l1", round_to=1)
    torch.testing.assert_close(pruned.model(x), model(x), atol=1e-5, rtol=1e-4)


STREAMS: dict[str, Function] = {
    "another layer": lambda h, m: h + m.other(m.x.tanh()),
    "a layer between": lambda h, m: h + F.linear(h.tanh(), m.up.weight @ m.other.weight.T),
    "called twice": lambda h, m: h + m.up(m.x.square()),
    "channels change places": lambda h, m: (
        torch.cat([h, m.other(m.x)], -1) + torch.cat([m.other(m.x), h], -1)
    )[..., :12],
    "a shift that another layer says": lambda h, m: h + h * m.other(m.x),
}


@pytest.mark.parametrize("between", STREAMS.values(), ids=STREAMS.keys())
def test_what_several_layers_write_is_a_stream(between):
    found = groups_of(Mlp(between).eval(), torch.randn(4, 5))
    assert found["up"].kind == "residual"


OBSTACLES: dict[str, Function] = {
    "a number per channel": lambda h, m: h + (m.slopes * h).sin(),
    "one branch is pooled": lambda h, m: h + F.avg_pool1d(h.T, 3, 1, 1, False, False).T,
    "a batch norm in one branch": lambda h, m: h + F.batch_norm(h, m.slopes * 0, m.slopes),
}


@pytest.mark.parametrize("between", OBSTACLES.values(), ids=OBSTACLES.keys())
def test_what_is_no_function_of_an_element_is_named(between):
    model, x = Mlp(between).eval(), torch.randn(4, 5)
    channels = group(read(trace(model, x)))
    inner = next(one for one in channels.groups if one.name == "up")
    unit = bind(channels, inner, named_tensors(model)).unit
    assert unit.obstacle is not None
    assert "lies between" in unit.obstacle
    assert unit.activation is None


def test_regression_serves_a_function_written_out():
    torch.manual_seed(0)
    model, x = Mlp(tanh_gelu, 32).eval(), torch.randn(512, 5)
    (one,) = bequest.prune(model, x[:1], 0.5, data=[x]).report.groups
    assert (one.kind, one.restored_by) == ("inner", "regression")
    assert one.reconstruction_error < one.unrestored_error

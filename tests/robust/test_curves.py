"""Ranges and slopes of every element-wise function, against dense samples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from torch import nn

from bequest.graph.trace import trace
from bequest.robust import curves
from bequest.robust.intervals import Interval
from bequest.robust.lines import lines_of
from bequest.robust.rules.base import RULES, Rule, file

FUNCTIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "leaky, falling": lambda x: F.leaky_relu(x, -0.3),
    "leaky, steep": lambda x: F.leaky_relu(x, 1.7),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 2.0),
    "elu": lambda x: F.elu(x, 1.5),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.7),
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "softplus": lambda x: F.softplus(x, beta=2.0, threshold=60.0),
    "logsigmoid": F.logsigmoid,
    "threshold": lambda x: F.threshold(x, 0.4, 0.1),
    "threshold, down": lambda x: F.threshold(x, 0.4, 3.0),
    "clamp": lambda x: x.clamp(-0.3, 1.2),
    "clamp from below": lambda x: x.clamp(min=-0.3),
    "abs": torch.abs,
    "neg": torch.neg,
    "exp": torch.exp,
    "square": torch.square,
    "cube": lambda x: x**3,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "asinh": torch.asinh,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "round": torch.round,
    "floor": torch.floor,
    "sign": torch.sign,
    "plus": lambda x: x + 2,
    "times": lambda x: -1.5 * x,
    "less": lambda x: 1 - x,
    "over": lambda x: x / 4,
}


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def node_of(function):
    network = trace(Function(function), torch.zeros(3, dtype=torch.float64))
    (node,) = [one for one in network.nodes if one.op == "call_function" and curves.has_curve(one)]
    return node


def intervals():
    """Random ones of all sizes, and some that end in corners."""
    generator = torch.Generator().manual_seed(0)
    centre = 4 * torch.randn(200, generator=generator, dtype=torch.float64)
    radius = torch.rand(200, generator=generator, dtype=torch.float64) ** 3 * 5
    ends = torch.tensor([-3.0, -1.5, -0.5, -0.3, 0.0, 0.4, 1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
    low, high = torch.triu_indices(len(ends), len(ends))
    return Interval(
        torch.cat([centre - radius, ends[low]]), torch.cat([centre + radius, ends[high]])
    )


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_range_and_slopes_hold_all_samples(function):
    node, x = node_of(function), intervals()
    inside = x.lower + (x.upper - x.lower) * torch.linspace(0, 1, 201).double()[:, None]

    image, slopes = curves.image(node, x), curves.slopes(node, x)
    found = curves.apply(node, inside)
    steps = (inside[1:] - inside[:-1]).clamp(min=1e-300)
    steepness = (found[1:] - found[:-1]) / steps
    resolved = inside[1:] - inside[:-1] > 1e-6

    assert (image.lower <= found + 1e-12).all()
    assert (found <= image.upper + 1e-12).all()
    assert (slopes.lower <= steepness + 1e-8)[resolved].all()
    assert (steepness <= slopes.upper + 1e-8)[resolved].all()


@pytest.mark.parametrize("name", ["relu", "leaky", "gelu", "silu", "mish", "sigmoid", "tanh"])
def test_the_bounds_are_no_wider_than_needed(name):
    node, x = node_of(FUNCTIONS[name]), intervals()
    inside = x.lower + (x.upper - x.lower) * torch.linspace(0, 1, 4001).double()[:, None]
    wide = x.upper - x.lower > 0.1

    image = curves.image(node, x)
    found = curves.apply(node, inside)

    assert torch.allclose(image.upper[wide], found.amax(0)[wide], atol=1e-4)
    assert torch.allclose(image.lower[wide], found.amin(0)[wide], atol=1e-4)


def test_the_tight_forms_where_the_sign_is_fixed():
    node = node_of(F.relu)
    x = Interval(torch.tensor([1.0, -2.0, -1.0]).double(), torch.tensor([2.0, -1.0, 1.0]).double())

    slopes = curves.slopes(node, x)

    assert slopes.lower.tolist() == [1, 0, 0]
    assert slopes.upper.tolist() == [1, 0, 1]


def test_the_jump_of_softplus_is_counted():
    """With beta 2 and threshold 1 it falls at 1/2 from ln(1 + e)/2 to 1/2."""
    node = node_of(lambda x: F.softplus(x, beta=2.0, threshold=1.0))
    ends = torch.tensor([0.5, 0.5 + 1e-12], dtype=torch.float64)
    before, after = curves.apply(node, ends)

    assert (before - after).item() == pytest.approx(curves.jump(node))


def test_outside_of_its_domain_nothing_is_known():
    for function in (torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal):
        node = node_of(function)
        x = Interval(torch.tensor([-1.0]).double(), torch.tensor([2.0]).double())

        assert not curves.image(node, x).bounded


def test_an_operator_that_has_an_interval_rule_keeps_it():
    before = dict(RULES)
    with pytest.raises(ValueError, match="conv2d, linear: expected operators without"):
        file(Rule(lambda node, x: x, lambda node, x: x.difference), "linear conv2d unheard_of")
    assert before == RULES


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lines_are_above_and_below(name):
    """Of functions that jump as well: what they take in between is then all that is known."""
    node = node_of(FUNCTIONS[name])
    x = intervals()

    found = lines_of(node, x)

    for share in torch.linspace(0, 1, 41, dtype=torch.float64):
        z = x.lower + (x.upper - x.lower) * share
        value = curves.apply(node, z)
        room = 1e-12 * (1 + value.abs())
        assert (found.lower.at(z) <= value + room).all()
        assert (value <= found.upper.at(z) + room).all()

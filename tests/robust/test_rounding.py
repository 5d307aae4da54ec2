"""Bounds hold where float64 loses digits: numbers that nearly cancel, saturate, over- or underflow.

What is true is computed with the standard library's decimal numbers, to a hundred digits.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
import torch
from torch import nn

from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.robust import curves
from bequest.robust.folding import folded
from bequest.robust.impact import certified_change, output_of, values
from bequest.robust.intervals import Interval

FINE = 100  # digits


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def bounded(model, lower, upper):
    """The interval of a network's output over a box of one input, and what has no rule."""
    reading = read(trace(model.double().eval(), torch.zeros_like(lower)[None]))
    tensors = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    found = values(reading.network, folded(reading, tensors), [Interval(lower[None], upper[None])])
    return found.known[output_of(reading.network)], found


def inside(interval, numbers):
    ends = zip(interval.lower.flatten().tolist(), interval.upper.flatten().tolist(), strict=True)
    return [
        Decimal(low) <= number <= Decimal(high)
        for (low, high), number in zip(ends, numbers, strict=True)
    ]


def softmax(logits):
    with localcontext() as context:
        context.prec = FINE
        powers = [Decimal(logit).exp() for logit in logits]
        return [power / sum(powers) for power in powers]


@pytest.mark.parametrize(
    "centre",
    [
        (0.0, 0.0, 0.0, 0.0),
        (40.0, 0.0, 0.3, -0.5),
        (0.1, 45.0, 45.0, 0.2),
        (800.0, 0.0, 1.0, -3.0),
        (1e6, 1e6 - 1, 1e6 - 40, 0.0),
        (-1e5, -1e5, -1e5 - 60, -1e5 - 2),
    ],
)
@pytest.mark.parametrize("radius", [0.0, 1e-9, 0.4, 30.0])
def test_softmax_holds_its_corners_however_far_one_logit_is_ahead(centre, radius):
    lower, upper = double(*centre) - radius, double(*centre) + radius

    found, _ = bounded(Applied(lambda x: torch.softmax(x, -1)), lower, upper)

    for entry in range(len(centre)):
        for end in (lower, upper):  # each entry against all others: where its extremes are
            corner = (lower + upper - end).clone()
            corner[entry] = end[entry]
            assert all(inside(found, softmax(corner.tolist())))


def test_softmax_says_something_of_what_is_far_behind():
    """Below 1 is not all that is known: one behind by 50 nats has between e^-52 and e^-48 or so."""
    lower, upper = double(-1.0, 49.0), double(1.0, 51.0)

    found, _ = bounded(Applied(lambda x: torch.softmax(x, -1)), lower, upper)

    assert found.lower[0, 0] == pytest.approx(torch.tensor(-52.0).double().exp().item())
    assert found.upper[0, 0] == pytest.approx(torch.tensor(-48.0).double().exp().item())


def test_softmax_with_logits_that_may_be_anything():
    lower, upper = double(-torch.inf, 0.0, 0.0), double(torch.inf, 1.0, 1.0)

    found, _ = bounded(Applied(lambda x: torch.softmax(x, -1)), lower, upper)

    assert (found.lower >= 0).all() and (found.upper <= 1).all()
    assert found.lower[0, 0] == 0 and found.upper[0, 0] == 1
    assert found.lower[0, 1] == 0 and found.upper[0, 1] > 0.7


def test_a_saturated_sigmoid_still_has_a_slope():
    """σ(40) and σ(41) differ by 3e-18, which float64 can't see next to 1."""
    narrow = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        for parameter in narrow.double().parameters():
            parameter.fill_(1.0)
    reading = read(trace(narrow.eval(), double(0.0)[None]))
    first = {name: tensor.detach() for name, tensor in named_tensors(narrow).items()}
    second = {**first, "0.bias": first["0.bias"] + 1}
    box = [Interval(double(39.0)[None], double(39.5)[None])]

    change, gaps = certified_change(
        *(values(reading.network, tensors, box) for tensors in (first, second))
    )

    with localcontext() as context:
        context.prec = FINE
        before, after = (1 / (1 + Decimal(-z).exp()) for z in (40, 41))
        assert not gaps
        assert all(inside(change, [after - before]))
    assert change.upper < 1e-11


def test_a_batch_norm_of_hardly_any_variance():
    """x near a mean of 1000, divided by a deviation of 1e-6."""
    norm = nn.BatchNorm2d(1, eps=1e-12)
    with torch.no_grad():
        norm.running_mean.fill_(1000.1)
        norm.running_var.fill_(0.0)
        norm.weight.fill_(1.0)
        norm.bias.fill_(0.5)
    model = norm.double().eval()
    x = double(1000.1 + 3e-7).view(1, 1, 1)

    found, _ = bounded(model, x, x)

    with localcontext() as context:
        context.prec = FINE
        mean, value = Decimal(model.running_mean.item()), Decimal(x.item())
        exact = (value - mean) / Decimal(model.eps).sqrt() + Decimal("0.5")
    assert all(inside(found, [exact]))
    assert found.upper - found.lower < 1e-5


def test_a_mean_of_numbers_that_cancel():
    terms = [1e16, 1.0, -1e16, 3.0, 1e-3, -2.0]

    found, _ = bounded(Applied(lambda x: x.mean(-1, keepdim=True)), double(*terms), double(*terms))

    with localcontext() as context:
        context.prec = FINE
        assert all(inside(found, [sum(map(Decimal, terms)) / len(terms)]))


def test_a_bias_far_above_what_the_layer_adds():
    layer = nn.Linear(2, 1).double()
    with torch.no_grad():
        layer.weight.copy_(double(0.1, 0.7)[None])
        layer.bias.fill_(1e9 / 3)
    x = double(0.3, 0.9)

    found, _ = bounded(layer, x, x)

    terms = zip(layer.weight[0].tolist(), x.tolist(), strict=True)
    with localcontext() as context:
        context.prec = FINE
        exact = Decimal(layer.bias.item()) + sum(Decimal(w) * Decimal(v) for w, v in terms)
    assert all(inside(found, [exact]))


def test_what_overflows_is_not_certain_to_be_infinite():
    x = double(800.0)

    found, _ = bounded(Applied(torch.exp), x, x + 1)

    assert found.lower.isfinite().all()
    assert found.upper.isinf().all()


def test_what_vanishes_is_not_certain_to_be_zero():
    x = double(-800.0)

    found, _ = bounded(Applied(torch.exp), x, x)

    assert (found.upper > 0).all()


@pytest.mark.parametrize("x", [-9.0, -30.0, -5.5])
def test_what_gelu_has_left_far_below_zero(x):
    found, _ = bounded(Applied(nn.functional.gelu), double(x), double(x))

    assert (found.lower < 0).all()  # −|x|·Φ(x), of which float64 keeps nothing below −8.3


@pytest.mark.parametrize("name", ["asin", "acos", "atanh"])
def test_slopes_next_to_a_pole(name):
    """Between 1 − 3e-15 and 1 − 1e-15 the slope is that of a secant in exact numbers at most."""
    reading = read(trace(Applied(getattr(torch, name)), double(0.0)[None]))
    (node,) = [one for one in reading.network.nodes if one.op == "call_function"]
    x = Interval(double(1 - 3e-15), double(1 - 1e-15))

    slopes = curves.slopes(node, x)

    with localcontext() as context:
        context.prec = FINE
        for end in (x.lower.item(), x.upper.item()):
            room = (1 - Decimal(end)) * (1 + Decimal(end))
            exact = {"asin": 1 / room.sqrt(), "acos": -1 / room.sqrt(), "atanh": 1 / room}[name]
            assert all(inside(slopes, [exact]))


def test_a_quotient_that_is_rounded_down_jumps():
    """torch.div(rounding_mode="floor") has a gradient of zero, and jumps all the same."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(1, 1)

        def forward(self, x):
            return torch.div(self.a(x), 2, rounding_mode="floor")

    model = Net().double().eval()
    reading = read(trace(model, double(0.0)[None]))
    first = {"a.weight": double(1.0)[None], "a.bias": double(0.0)}
    second = {"a.weight": double(1.0)[None], "a.bias": double(2.0)}
    box = [Interval(double(0.0)[None], double(1.0)[None])]

    change, _ = certified_change(
        *(values(reading.network, tensors, box) for tensors in (first, second))
    )

    assert change.lower <= 1 <= change.upper


def test_a_quotient_that_is_cut_was_rounded_before():
    """0.5 / 0.1 is less than 5, as the double 0.1 is more than a tenth; float64 rounds it to 5."""

    half, tenth = 0.5, 0.1
    model = Applied(lambda x: torch.div(x, tenth, rounding_mode="trunc"))

    image, found = bounded(model, double(half), double(half))

    assert Decimal(half) / Decimal(tenth) < 5
    assert not found.gaps
    assert image.lower <= 4
    assert image.upper >= 5


def test_constants_of_the_code_and_parameters_that_are_read_like_inputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 4)
            self.shift = nn.Parameter(torch.randn(1, 4))

        def forward(self, x):
            x = x - torch.tensor([0.5, 0.25, 0.75], dtype=x.dtype)
            return self.a(x) * torch.sigmoid(self.shift) + self.shift.expand(len(x), 4)

    torch.manual_seed(0)
    model = Net().double().eval()
    x = torch.rand(3, dtype=torch.float64)

    found, held = bounded(model, x, x)

    assert not held.gaps
    assert torch.allclose(found.centre, model(x[None]), atol=1e-12)


def test_a_weight_that_the_code_computes_is_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.scale = nn.Linear(3, 4), nn.Parameter(torch.rand(4, 1))

        def forward(self, x):
            return nn.functional.linear(x, self.a.weight * self.scale, self.a.bias)

    x = torch.rand(3, dtype=torch.float64)

    found, held = bounded(Net(), x, x)

    assert held.gaps == ("linear",)
    assert not found.bounded


def test_a_view_of_what_was_made_contiguous():
    def function(x):
        return x.permute(0, 2, 1).contiguous().view(1, -1)

    x = torch.rand(2, 3, dtype=torch.float64)

    found, _ = bounded(Applied(function), x, x)

    assert torch.allclose(found.centre, function(x[None]))

"""The true change never leaves the certified interval: a thousand random networks, many steps."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from bequest import robust
from bequest.graph.chains import bind
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.robust import run
from bequest.robust.folding import folded
from bequest.robust.impact import certified_change, values
from bequest.robust.intervals import Interval
from bequest.robust.merging import Layer
from bequest.robust.shapes import as_replaced
from tests.robust.networks import (
    ACTIVATIONS,
    SHAPES,
    convolutional,
    mlp,
    normed,
    randomised,
    traced_once,
)

CASES = [
    (make, activation, bias)
    for make in (mlp, convolutional, normed)
    for activation in ACTIVATIONS
    for bias in (True, False)
]
NETWORKS = 56  # of each case: 1,008 in all


def inputs(shape, low, high, generator):
    """Random ones, and corners of the box, where bounds are reached."""
    inside = torch.rand(40, *shape, generator=generator, dtype=torch.float64)
    corners = (torch.rand(40, *shape, generator=generator) < 0.5).double()
    return low + (high - low) * torch.cat([inside, corners])


def merge_at_random(layer, steps, random):
    for _ in range(steps):
        alive = np.flatnonzero(layer.alive)
        if len(alive) > 1:
            layer.merge([tuple(random.choice(alive, 2, replace=False).tolist())])


def summed(layers, dense):
    """Naively: what reads a channel that left is added to what reads its heir."""
    result = {name: tensor.clone() for name, tensor in dense.items()}
    for layer in layers:
        for feed in layer.bound.feeds:
            columns = result[feed.read.weight].movedim(feed.read.dim, 0)
            for gone in np.flatnonzero(~layer.alive):
                heir = layer.heir[gone]
                columns[feed.columns[heir]] += dense[feed.read.weight].movedim(feed.read.dim, 0)[
                    feed.columns[gone]
                ]
                columns[feed.columns[gone]] = 0
    return result


@pytest.mark.parametrize(("make", "activation", "bias"), CASES)
def test_the_true_change_never_leaves_the_interval(make, activation, bias):
    generator, random = torch.Generator().manual_seed(1), np.random.default_rng(1)
    shape = SHAPES[make]
    model = make(ACTIVATIONS[activation], bias).double().eval()
    channels = group(read(trace(model, torch.zeros(1, *shape, dtype=torch.float64))))
    reading = channels.reading
    for number in range(NETWORKS):
        low, high = ((0, 1), (-1, 2))[number % 2]
        dense = {
            k: v.detach().clone() for k, v in named_tensors(randomised(model, generator)).items()
        }
        hidden = [member for member in channels.groups if not member.is_output]
        layers = [Layer(one, bind(channels, one, dense), channels, 0, 1) for one in hidden]
        for layer in layers:
            merge_at_random(layer, 1 + number % 5, random)
        pruned = summed(layers, dense)
        if number % 3 == 0:  # and as if a restorer had changed the weights
            pruned = {
                name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator).double()
                if name.endswith(("weight", "bias"))
                else tensor
                for name, tensor in pruned.items()
            }
        written = pruned if number % 3 == 0 else as_replaced(channels, layers, dense, pruned)
        box = torch.zeros(1, *shape, dtype=torch.float64)
        ranges = [Interval(box + low, box + high)]

        first, second = (
            values(reading.network, folded(reading, tensors), ranges)
            for tensors in (dense, written)
        )
        bound, gaps = certified_change(first, second)

        x = inputs(shape, low, high, generator)
        with torch.no_grad():
            change = functional_call(model, pruned, x) - functional_call(model, dense, x)
        assert not gaps
        assert change.abs().max() > 0
        assert (bound.lower <= change).all()
        assert (change <= bound.upper).all()


@pytest.mark.parametrize(("make", "activation", "bias"), CASES)
def test_the_report_holds_for_the_network_that_is_returned(make, activation, bias, monkeypatch):
    monkeypatch.setattr(run, "trace", traced_once())
    generator = torch.Generator().manual_seed(2)
    for seed, restorer in enumerate(("sum", "lbyl", "none")):
        model = randomised(make(ACTIVATIONS[activation], bias), generator)
        x = inputs(SHAPES[make], 0, 1, generator)

        pruned = robust.prune(
            model, x[:1], (0, 1), ratio=0.7, step=0.3, restorer=restorer, seed=seed
        )

        with torch.no_grad():
            change = pruned.model(x) - model(x)
        lower, upper = pruned.report.certified_change
        assert len(pruned.report.steps) > 1
        assert lower.shape == upper.shape == change.shape[1:]
        assert (lower <= change).all()
        assert (change <= upper).all()


def test_merging_by_summing_is_bounded_more_tightly_than_independent_ranges():
    """Both units read the same inputs: the difference of filters counts, not that of ranges."""
    model = mlp(ACTIVATIONS["relu"]).double()
    randomised(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[0].weight[1] = model[0].weight[0] + 1e-3
        model[0].bias[1] = model[0].bias[0]
    example = torch.zeros(1, 6, dtype=torch.float64)

    pruned = robust.prune(model, example, ratio={"0": 1 / 8}, step=1.0, strategy="baseline")

    lower, upper = pruned.report.certified_change
    assert pruned.report.groups[0].removed in ((0,), (1,))
    assert (upper - lower).max() < 0.2


class Residual(nn.Module):
    """A stream, a saturated gate, and a classifier that is sure of itself."""

    def __init__(self, end):
        super().__init__()
        self.a, self.u, self.d, self.o = (nn.Linear(*s) for s in ((6, 9), (9, 8), (8, 9), (9, 3)))
        self.end = end

    def forward(self, x):
        h = torch.sigmoid(self.a(x) + 20)
        return self.end(self.o(h + self.d(torch.tanh(self.u(h)))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("end", [nn.Softmax(-1), nn.Identity()])
def test_the_report_holds_with_saturated_units_and_the_weights_of_any_precision(end, dtype):
    torch.manual_seed(3)
    model = Residual(end).to(dtype).eval()
    with torch.no_grad():
        model.o.bias[0] = 50
    x = inputs((6,), 0, 1, torch.Generator().manual_seed(0))

    pruned = robust.prune(model, torch.zeros(1, 6, dtype=dtype), (0, 1), 0.5, 0.5, "baseline")

    exact, smaller = (copy.deepcopy(one).double() for one in (model, pruned.model))
    with torch.no_grad():
        change = smaller(x) - exact(x)
    lower, upper = pruned.report.certified_change
    assert pruned.report.groups
    assert (lower <= change).all()
    assert (change <= upper).all()
    assert (upper - lower).max() < 1e-3

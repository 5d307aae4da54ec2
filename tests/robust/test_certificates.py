"""Certificates hold whatever gradient ascent finds, and say more than intervals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import bequest
from bequest import robust
from bequest.errors import ModelError, UsageError
from bequest.robust import aligned
from bequest.robust.impact import certified_change as by_intervals
from bequest.robust.impact import values
from bequest.robust.intervals import Interval
from tests.robust.lirpa import MISSING, crown
from tests.robust.networks import randomised, traced_once
from tests.robust.search import reached

UNITS = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.2),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def mlp(unit):
    hidden = [nn.Linear(6, 9), unit(), nn.Linear(9, 8), unit(), nn.Linear(8, 7), unit()]
    return nn.Sequential(*hidden, nn.Linear(7, 4))


def convolutional(unit):
    first = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), unit(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 5, 3), unit(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*first, *second, nn.Linear(5, 6), unit(), nn.Linear(6, 3))


class Residual(nn.Module):
    """Two blocks with a shortcut, a concatenation, and a softmax at the end."""

    def __init__(self, unit):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.a, self.b = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(4)])
        self.side, self.head, self.unit = nn.Conv2d(4, 3, 1), nn.Linear(7, 3), unit()

    def forward(self, x):
        x = self.unit(self.stem(x))
        inner = self.unit(self.norms[0](self.a(x)))
        x = self.unit(x + self.norms[1](self.b(inner)))
        x = torch.cat([x, self.unit(self.side(x))], 1)
        return self.head(x.mean((2, 3))).softmax(-1)


SHAPES = {mlp: (6,), convolutional: (2, 8, 8), Residual: (2, 6, 6)}


@pytest.fixture(autouse=True)
def _traced_once(monkeypatch):
    monkeypatch.setattr(aligned, "trace", traced_once())


def changed(model, how, generator):
    """The network with channels gone, merged, or all weights a little different."""
    other = copy.deepcopy(model)
    layers = [one for one in other.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for reader in layers[1:]:
            if how == "moved":
                noise = torch.randn(reader.weight.shape, generator=generator, dtype=torch.float64)
                reader.weight += 0.05 * noise
                continue
            columns = reader.weight.movedim(1, 0)
            if how == "merged":
                columns[0] += columns[1]
            columns[1] = 0
    return other


def boxes(shape, count, eps, generator):
    x = torch.rand(count, *shape, generator=generator, dtype=torch.float64)
    return x, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)


def intervals_of(model, other, x, low, high):
    """What interval arithmetic alone says of the change, per box."""
    pair, found = aligned.aligned(model, other, x), []
    for box in zip(low, high, strict=True):
        ranges = [Interval(*(end[None] for end in box))]
        sides = ({n: getattr(w, s) for n, w in pair.weights.items()} for s in ("first", "second"))
        change, _ = by_intervals(*(values(pair.network, one, ranges) for one in sides))
        found.append(torch.stack([change.lower[0], change.upper[0]]))
    return torch.stack(found, 1)


CASES = [(0.02, "gone"), (0.2, "merged"), (1.0, "moved")]


@pytest.mark.parametrize("make", SHAPES)
@pytest.mark.parametrize("unit", UNITS)
def test_nothing_that_is_found_is_outside_and_intervals_say_no_more(make, unit):
    generator = torch.Generator().manual_seed(len(unit) + SHAPES[make][0])
    for eps, how in CASES if make is mlp else CASES[len(unit) % 3 :][:1]:
        model = randomised(make(UNITS[unit]), generator)
        other = changed(model, how, generator)
        x, low, high = boxes(SHAPES[make], 3, eps, generator)

        found = robust.certify(model, other, x, eps)

        least, most = reached(lambda z, a=model, b=other: b(z) - a(z), low, high, steps=10)
        interval = intervals_of(model, other, x, low, high)
        assert not found.unbounded and not found.loose
        assert (found.lower <= least).all() and (most <= found.upper).all()
        assert (interval[0] <= found.lower + 1e-9).all()
        assert (found.upper <= interval[1] + 1e-9).all()


@pytest.mark.parametrize("restorer", ["sum", "none", "lbyl", "regression"])
def test_what_pruning_returns_is_aligned_by_its_plan(restorer):
    """Without a bias anywhere, so that restorers may write new ones."""
    model = nn.Sequential(
        *(nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(72, 16), nn.ReLU(), nn.Linear(16, 4)),
    )
    model = randomised(model, torch.Generator().manual_seed(1)).float()
    x, low, high = boxes((2, 8, 8), 4, 0.02, torch.Generator().manual_seed(0))
    pruned = bequest.prune(model, x[:1].float(), 0.5, restorer=restorer, round_to=1, progress=False)
    exact, smaller = (copy.deepcopy(one).double() for one in (model, pruned.model))

    for one in (pruned, pruned.model):
        lower, upper = robust.certified_change(model, one, x, 0.02)

        least, most = reached(lambda z: smaller(z) - exact(z), low, high)
        assert (lower <= least).all() and (most <= upper).all()
        assert ((upper - lower) < 3 * (most - least)).all()
    assert aligned.aligned(model, pruned, x) is not None


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
@pytest.mark.parametrize("eps", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("how", ["gone", "merged", "moved"])
def test_no_looser_than_crown_on_the_difference_as_one_module(how, eps):
    """Which loses nothing by reading the input twice, but knows no difference in between."""
    generator = torch.Generator().manual_seed(0)
    model = randomised(mlp(nn.ReLU), generator)
    other = changed(model, how, generator)
    x, low, high = boxes((6,), 8, eps, generator)

    lower, upper = robust.certified_change(model, other, x, eps)

    least, most = crown(model, other, low, high)
    assert (least < most).all()
    assert (upper - lower).mean() < (most - least).mean()
    assert (torch.minimum(most, upper) >= torch.maximum(least, lower)).all()


class Rooted(nn.Module):
    """A root of what is no less than zero: rectified, squared, or of an exponential."""

    def __init__(self, inner):
        super().__init__()
        self.first, self.last, self.inner = nn.Linear(4, 8), nn.Linear(8, 3), inner

    def forward(self, x):
        return self.last(self.inner(self.first(x)).sqrt())


ROOTED = {
    **{f.__name__: f for f in (torch.relu, torch.square, torch.exp, torch.abs, torch.sigmoid)},
    "softplus": nn.functional.softplus,
    "relu6": nn.functional.relu6,
    "clamp": lambda z: z.clamp(min=0),
    "clamp_min": lambda z: torch.clamp_min(z, 0.0),
    "hardtanh": lambda z: nn.functional.hardtanh(z, 0.0, 2.0),
    "even power": lambda z: z.pow(4),
    "level": lambda z: z.clamp(0.5, 0.25),  # the greater end counts last
}


@pytest.mark.parametrize("inner", ROOTED.values(), ids=ROOTED)
def test_rounding_does_not_lead_out_of_what_a_root_takes(inner):
    torch.manual_seed(1)
    dense = Rooted(inner).double()
    pruned, x = copy.deepcopy(dense), torch.rand(3, 4).double()
    pruned.last.weight.data[:, ::2] = 0
    lower, upper = robust.certified_change(dense, pruned, x, 0.1)
    assert (lower.isfinite() & upper.isfinite()).all()
    for _ in range(50):
        moved = (x + 0.1 * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        change = pruned(moved) - dense(moved)
        assert ((lower <= change) & (change <= upper)).all()


def test_networks_without_a_common_plan_are_bounded_by_what_they_read():
    """Their difference is that of two networks that read the same: 0 for a copy, to rounding."""

    class Named(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    model = randomised(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), torch.Generator())
    x = torch.rand(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    lower, upper = robust.certified_change(model, Named(copy.deepcopy(model)), x, 0.1)

    assert lower.abs().max() < 1e-9 and upper.abs().max() < 1e-9
    assert (lower <= 0).all() and (upper >= 0).all()


def test_the_change_of_linear_networks_is_exact():
    model = randomised(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), torch.Generator())
    other = randomised(copy.deepcopy(model), torch.Generator().manual_seed(1))

    lower, upper = robust.certified_change(model, other, torch.zeros(1, 6), input_range=(-1, 1))

    weights = [one[1].weight @ one[0].weight for one in (model, other)]
    centre = (other(torch.zeros(1, 6).double()) - model(torch.zeros(1, 6).double()))[0]
    reach = (weights[1] - weights[0]).abs().sum(1)
    assert torch.allclose(upper, centre + reach, rtol=1e-9, atol=0)
    assert torch.allclose(lower, centre - reach, rtol=1e-9, atol=0)


def test_shares_that_may_be_anything_still_add_up_to_one():
    """A layer behind a softmax of whatever: between its least and its largest weight."""
    model = randomised(
        nn.Sequential(nn.Linear(6, 5), nn.Softmax(1), nn.Linear(5, 3)), torch.Generator()
    )
    model[0].weight.data.mul_(1e3)
    other = copy.deepcopy(model)
    other[2].weight.data.copy_(torch.rand(3, 5, generator=torch.Generator().manual_seed(0)))

    lower, upper = robust.certified_change(model, other, torch.zeros(1, 6), input_range=(-1, 1))

    grown = other[2].weight - model[2].weight
    assert torch.allclose(lower, grown.amin(1), rtol=1e-6, atol=0)
    assert torch.allclose(upper, grown.amax(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("unit", "how"), [("relu", "merged"), ("silu", "moved")])
def test_descent_on_the_lines_tightens_and_holds(unit, how):
    generator = torch.Generator().manual_seed(5)
    model = randomised(mlp(UNITS[unit]), generator)
    other = changed(model, how, generator)
    x, low, high = boxes((6,), 2, 0.4, generator)
    plain = robust.certify(model, other, x, 0.4)

    found = robust.certify(model, other, x, 0.4, steps=5)

    least, most = reached(lambda z: other(z) - model(z), low, high, steps=10)
    assert (found.lower <= least).all() and (most <= found.upper).all()
    assert (plain.lower <= found.lower).all() and (found.upper <= plain.upper).all()
    assert (found.upper - found.lower).mean() < (plain.upper - plain.lower).mean()


def test_where_networks_agree_no_attack_makes_them_differ():
    generator = torch.Generator().manual_seed(3)
    model = randomised(mlp(nn.ReLU), generator)
    other = changed(model, "moved", generator)
    x, low, high = boxes((6,), 40, 0.05, generator)

    found = robust.certify(model, other, x, 0.05)

    classes = model(x).argmax(1)
    assert 0.2 < found.agreement < 1
    for one in (model, other):

        def behind(z, one=one):
            """By how much each class is ahead of the dense network's."""
            logits = one(z)
            return logits - logits.gather(1, classes.repeat(len(z) // 40)[:, None])

        _, most = reached(behind, low, high)
        others = most.scatter(1, classes[:, None], -torch.inf).amax(1)
        assert (others[found.agrees] < 0).all()


def test_operators_without_rows_are_named_and_those_without_a_rule_refused():
    class Gated(nn.Module):
        def __init__(self, end):
            super().__init__()
            self.a, self.b, self.end = nn.Linear(6, 4), nn.Linear(6, 4), end

        def forward(self, x):
            return self.end(self.a(x) * self.b(x))

    class Tangent(nn.Module):
        def forward(self, x):
            return torch.tan(x)

    x, low, high = boxes((6,), 3, 0.1, torch.Generator().manual_seed(0))
    model = randomised(Gated(nn.Linear(4, 3)), torch.Generator().manual_seed(1))
    other = changed(model, "moved", torch.Generator().manual_seed(2))
    found = robust.certify(model, other, x, 0.1)
    least, most = reached(lambda z: other(z) - model(z), low, high)
    assert found.loose == ("mul",)
    assert (found.lower <= least).all() and (most <= found.upper).all()

    model = Gated(Tangent())
    other = changed(model, "moved", torch.Generator().manual_seed(2))
    assert robust.certify(model, other, x, 0.1).unbounded == ("tan in 'end'",)
    with pytest.raises(ModelError, match="tan in 'end'"):
        robust.certified_change(model, other, x, 0.1)


def test_operators_of_every_kind_pass_rows():
    """Windows that overlap and are padded, groups, strides, broadcasting, splits and joins."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
            self.wide = nn.ConvTranspose2d(4, 4, 2, stride=2)
            self.norm = nn.BatchNorm2d(4)
            self.shift, self.scale = nn.Parameter(torch.ones(4, 1, 1)), nn.Parameter(torch.ones(4))
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            x = torch.cat([x, 1 - x / 2], 1)
            a, b = self.pool(torch.tanh(self.grouped(x))).chunk(2, 1)
            a = self.norm(self.wide(a)) + self.shift
            a = (a * self.scale.view(-1, 1, 1)).clamp(min=-0.5).mean((2, 3), keepdim=True)
            x = torch.cat([a + b, -b], 1)  # the one is broadcast to the places of the other
            return self.head(torch.nn.functional.silu(x).amax((2, 3)))

    generator = torch.Generator().manual_seed(0)
    for eps in (0.01, 0.2):
        model, other = (randomised(Mixed(), generator) for _ in range(2))
        with torch.no_grad():
            for after, before in zip(other.parameters(), model.parameters(), strict=True):
                after.copy_(0.9 * before + 0.1 * after)
        x, low, high = boxes((2, 6, 6), 4, eps, generator)

        found = robust.certify(model, other, x, eps)

        least, most = reached(lambda z, a=model, b=other: b(z) - a(z), low, high)
        assert not found.unbounded and found.loose == ("amax",)
        assert (found.lower <= least).all() and (most <= found.upper).all()


def test_wrong_calls_say_what_was_expected():
    model = mlp(nn.ReLU)
    with pytest.raises(UsageError, match="floating-point"):
        robust.certify(model, model, torch.ones(2, 6, dtype=torch.int64))
    with pytest.raises(UsageError, match="eps"):
        robust.certify(model, model, torch.rand(2, 6), -0.1)
    with pytest.raises(UsageError, match="eps"):
        robust.certify(model, model, torch.rand(2, 6), torch.ones(5))
    for truth in (True, np.True_, [True], torch.ones(2, 6, dtype=torch.bool)):
        with pytest.raises(UsageError, match="eps: expected a number"):
            robust.certify(model, model, torch.rand(2, 6), truth)
    with pytest.raises(UsageError, match="within the input range"):
        robust.certify(model, model, torch.rand(2, 6) + 3, 0.1)
    with pytest.raises(UsageError, match="steps"):
        robust.certify(model, model, torch.rand(2, 6), 0.1, steps=-1)
    with pytest.raises(UsageError, match="pruned"):
        robust.certify(model, "out/", torch.rand(2, 6), 0.1)
    with pytest.raises(ModelError, match="one shape"):
        robust.certify(model, nn.Linear(6, 9), torch.rand(2, 6), 0.1)

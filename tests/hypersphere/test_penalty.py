import copy

import pytest
import torch
from torch import nn

import bequest
from bequest.errors import ModelError, UsageError
from bequest.hypersphere import HypersphericalPenalty, convert, penalty
from tests.hypersphere.networks import Net


def ternary_layer(rows=4, columns=12, stay=6):
    """Filters of zeros and ±c, another c for each filter."""
    layer = nn.Linear(columns, rows).double()
    with torch.no_grad():
        signs = torch.randn(rows, columns).sign()
        places = torch.rand(rows, columns).argsort(dim=1) < stay
        layer.weight.copy_(signs * places * torch.rand(rows, 1).add(0.1))
    return layer


@pytest.mark.parametrize("mask", ["layer", "filter", "global"])
@pytest.mark.parametrize("form", ["cosine", "two-term"])
def test_zero_on_ternary_filters(form, mask):
    layer = ternary_layer()
    for module in (layer, convert(layer), nn.Sequential(layer, ternary_layer(3, 4, 2))):
        assert penalty(module, 0.5, form, mask=mask).item() < 1e-30


def test_the_cosine_form_is_the_formula():
    layer = nn.Linear(10, 3).double()
    total = 0.0
    for row in layer.weight.detach():
        v = row / row.norm()
        T = torch.where(v.abs() >= v.abs().sort(descending=True).values[5], v.sign(), 0.0)
        total += 1 - float(T / T.norm() @ v)
    found = penalty(layer, 0.4, mask="filter")
    assert found.item() == pytest.approx(total / 3, abs=1e-14)


def test_the_two_terms_are_the_formula():
    layer = nn.Linear(10, 3).double()
    gone, stay = [], []
    for row in layer.weight.detach():
        size = (row / row.norm()).abs().sort().values
        gone.append(size[:4] ** 2)
        stay.append((1 / 6**0.5 - size[4:]).relu() ** 2)
    expected = torch.cat(gone).mean() + 0.3 * torch.cat(stay).mean()
    found = penalty(layer, 0.4, "two-term", mask="filter", push=0.3)
    torch.testing.assert_close(found, expected)


def test_a_filter_that_loses_everything_counts_as_one():
    layer = nn.Linear(4, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0]]))
    # The first filter keeps its four equal weights, the second has none.
    assert float(penalty(layer, 0.5)) == (0 + 1) / 2


@pytest.mark.parametrize("form", ["cosine", "two-term"])
@pytest.mark.parametrize("on_sphere", [False, True])
def test_the_gradient_is_right_and_orthogonal(form, on_sphere):
    layer = nn.Conv2d(3, 4, 3).double()
    module = convert(layer) if on_sphere else layer
    weight = module.direction if on_sphere else module.weight
    penalty(module, 0.5, form).backward()
    inner = (weight * weight.grad).flatten(1).sum(dim=1)
    torch.testing.assert_close(inner, torch.zeros_like(inner), rtol=0, atol=1e-14)
    place, step = (1, 2, 0, 1), 1e-6
    values = []
    for sign in (1, -1):
        moved = copy.deepcopy(module)
        with torch.no_grad():
            (moved.direction if on_sphere else moved.weight)[place] += sign * step
            values.append(float(penalty(moved, 0.5, form)))
    slope = (values[0] - values[1]) / (2 * step)
    assert float(weight.grad[place]) == pytest.approx(slope, abs=1e-8)


def test_minimising_it_makes_pruning_harmless():
    model = convert(Net())
    scheduled = HypersphericalPenalty(0.5, weight=1.0, warmup=50)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimiser.zero_grad()
        scheduled(model).backward()
        optimiser.step()
    x = torch.randn(4, 3, 6, 6)
    model.eval()
    pruned = bequest.hypersphere.prune(model, 0.5)
    torch.testing.assert_close(pruned(x), model(x), rtol=0, atol=1e-3)
    zeros = sum(int((m.weight == 0).sum()) for m in (pruned.first, pruned.second, pruned.head))
    assert zeros == (8 * 27 + 8 * 72 + 4 * 8) // 2


def test_the_schedule_rises_as_a_cube_and_counts_calls():
    model = Net()
    scheduled = HypersphericalPenalty(0.5, weight=2.0, warmup=10, form="cosine", refresh=1)
    filters = 8 + 8 + 4
    full = float(penalty(model, 0.5)) * 2.0 * filters
    found = [float(scheduled(model)) for _ in range(13)]
    expected = [full * min(1, step / 10) ** 3 for step in range(13)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_an_interrupted_schedule_goes_on():
    model = Net()
    whole = HypersphericalPenalty(0.5, warmup=10, refresh=5)
    halved = HypersphericalPenalty(0.5, warmup=10, refresh=5)
    moves = torch.randn(12, *model.second.weight.shape) * 0.05

    def values(scheduled, steps):
        for step in steps:
            with torch.no_grad():
                model.second.weight.add_(moves[step])
            yield float(scheduled(model))

    start = copy.deepcopy(model.state_dict())
    expected = list(values(whole, range(12)))
    model.load_state_dict(start)
    found = list(values(halved, range(7)))
    resumed = HypersphericalPenalty(0.5, warmup=10, refresh=5)
    resumed.load_state_dict(halved.state_dict(), model)
    assert found + list(values(resumed, range(7, 12))) == expected


def test_skipped_layers_have_no_gradient():
    model = Net()
    penalty(model, 0.5, skip=["first", "h*"]).backward()
    assert model.first.weight.grad is None
    assert model.head.weight.grad is None
    assert model.second.weight.grad is not None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: penalty(Net(), 1.0), UsageError, r"sparsity: expected a number in \[0, 1\)"),
        (lambda: penalty(Net(), -0.1), UsageError, "sparsity"),
        (lambda: penalty(Net(), True), UsageError, "sparsity"),
        (lambda: penalty(Net(), 0.5, "square"), UsageError, "form: expected one of cosine"),
        (lambda: penalty(Net(), 0.5, mask="rows"), UsageError, "mask"),
        (lambda: penalty(Net(), 0.5, skip=["third"]), UsageError, "'third' matches no layer"),
        (lambda: penalty(nn.BatchNorm1d(3), 0.5), ModelError, "no layer that can be pruned"),
        (lambda: penalty(Net(), 0.5, skip=["*"]), ModelError, "no layer that can be pruned"),
        (lambda: HypersphericalPenalty(0.5, weight=-1), UsageError, "weight"),
        (lambda: HypersphericalPenalty(0.5, refresh=0), UsageError, "refresh"),
        (lambda: HypersphericalPenalty(2), UsageError, "sparsity"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Layers that get no bias: what is fitted without intercept, and batch norms that take one up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import bequest
from bequest.calibration.inputs.given import collect
from bequest.errors import UsageError
from bequest.restorers import LBYL, Merge, MomentsRegression, Regression
from bequest.restorers.held_back import split
from bequest.restorers.moments import behind, pre_activations
from tests.language.networks import causal, tokens
from tests.restorers.units import GELU, IDENTITY, RELU, halves, make_unit, restored_outputs

KEPT_OUT = [
    Regression(bias="keep", refine=0),
    LBYL(bias="keep"),
    Merge(bias="keep"),
    MomentsRegression(bias="keep"),
]


def bare(activation=nn.ReLU):
    """A network without a bias, in double precision."""
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(6, 16, bias=False), activation(), nn.Linear(16, 5, bias=False))
        .double()
        .eval()
    )


def inputs():
    generator = torch.Generator().manual_seed(1)
    return 0.7 + torch.randn(640, 6, generator=generator, dtype=torch.float64)


def test_a_regression_without_intercept_is_the_naive_one():
    model, x, ridge = bare(), inputs(), 0.03
    pruned = bequest.prune(
        model,
        x[:2],
        0.5,
        restorer=Regression(bias="keep", ridge=ridge, refine=0, images=640),
        data=[x],
        round_to=1,
    )
    assert list(pruned.model.state_dict()) == list(model.state_dict())
    (group,) = pruned.plan.groups
    kept = sorted(set(range(16)) - set(group.removed))
    samples, _ = split(collect(model, [x], x[:2], 640))
    rows = torch.cat([chunk[0] for chunk in samples.chunks])
    with torch.no_grad():
        hidden = model[:2](rows)
        dense, z = model[2](hidden), hidden[:, kept]
        weight = model[2].weight[:, kept]
        lacking = dense - z @ weight.T
    rho = ridge * max(1, 32 * 8 / len(z)) * (z - z.mean(0)).square().sum(0).mean()
    change = torch.linalg.solve(z.T @ z + rho * torch.eye(8), z.T @ lacking).T
    torch.testing.assert_close(pruned.model[2].weight.detach(), weight + change)


@pytest.mark.parametrize("restorer", KEPT_OUT, ids=lambda one: one.name)
def test_who_says_keep_adds_no_bias_and_who_says_add_does(restorer):
    model, x = bare(), inputs()
    with torch.no_grad():
        model[0].weight[3:5] = 0.0
    data = [x] if restorer.reads_inputs else None
    kept = bequest.prune(
        model, x[:2], 0.5, restorer=restorer, criterion="random", data=data, round_to=1
    )
    assert kept.plan.surgery.biases == ()
    assert all(module.bias is None for module in kept.model if isinstance(module, nn.Linear))
    if restorer.name in ("regression", "moments"):  # the others have no constant to hand on
        for other in (None, "add"):
            added = replace(restorer, bias=other)
            one = bequest.prune(model, x[:2], 0.5, restorer=added, data=data, round_to=1)
            assert one.plan.surgery.biases == ("2",)


@pytest.mark.parametrize("kind", [Regression, LBYL, Merge, MomentsRegression])
def test_another_word_is_refused(kind):
    with pytest.raises(UsageError, match="expected bias 'add', 'keep' or None, found 'none'"):
        kind(bias="none")


def without_biases(unit):
    return replace(unit, consumers=tuple(replace(c, may_have_bias=False) for c in unit.consumers))


@pytest.mark.parametrize("restorer", [LBYL(), MomentsRegression()], ids=lambda one: one.name)
def test_dependent_rows_are_exact_without_activation(restorer):
    """Filters with their biases as further entries span all of them."""
    unit = without_biases(make_unit(10, 5, bias=True, norm=False, activation=IDENTITY))
    kept, removed = halves(10, 6)
    given = restorer.deliver(unit, kept, removed, seed=0)
    assert given.offset is None
    x = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, bias = unit.producer.folded()
    dense = (x @ weight.T + bias) @ unit.consumers[0].weight.sum(2).T
    (found,) = restored_outputs(unit, x, kept, removed, given)
    torch.testing.assert_close(found, dense)


@pytest.mark.parametrize("activation", [RELU, GELU], ids=lambda one: one.name)
def test_moments_about_zero_are_the_naive_ones(activation):
    unit = without_biases(make_unit(10, 24, bias=True, norm=False, activation=activation))
    kept, removed = halves(10, 5)
    given = MomentsRegression(ridge=0.02).deliver(unit, kept, removed, seed=0)
    mean, covariance = behind(unit.activation, *pre_activations(unit.producer))
    second = covariance + torch.outer(mean, mean)
    rho = 0.02 * covariance.diagonal()[kept].mean()
    naive = torch.linalg.solve(
        second[kept][:, kept] + rho * torch.eye(5), second[kept][:, removed]
    ).T
    torch.testing.assert_close(given.matrix, naive)
    assert given.offset is None


def test_a_constant_without_a_bias_to_go_to_is_fitted_by_moments_and_else_said_to_be_lost():
    unit = make_unit(10, 24, bias=True, norm=False)
    producer = replace(
        unit.producer,
        stored=unit.producer.weight * (torch.arange(10) != 9)[:, None],
        bias=unit.producer.bias.clone().index_fill_(0, torch.tensor([9]), 3.0),
    )
    unit = without_biases(replace(unit, producers=(producer,)))
    kept, removed = torch.arange(9), torch.tensor([9])
    given = MomentsRegression().deliver(unit, kept, removed, seed=0)
    mean, _ = behind(unit.activation, *pre_activations(producer))
    left = 3.0 - float(given.matrix[0] @ mean[kept])
    assert abs(left) < 1.5


class Normed(nn.Module):
    """A layer without a bias, a batch norm behind it."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 6, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, x):
        return self.norm(self.down(torch.relu(self.up(x))))


@pytest.mark.parametrize("restorer", [Regression(refine=0), MomentsRegression(), LBYL()])
def test_a_batch_norm_takes_a_bias_up(restorer):
    torch.manual_seed(0)
    model = Normed().eval()
    with torch.no_grad():
        model.up.weight[::2] = 0.0  # constants, which are left to a bias
    x = torch.randn(256, 3, 6, 6)
    data = [x] if restorer.reads_inputs else None
    one, other = (
        bequest.prune(
            model, x[:2], 0.5, restorer=replace(restorer, bias=word), data=data, round_to=1
        )
        for word in ("add", "keep")
    )
    assert one.plan.surgery.biases == ("down",)
    assert other.plan.surgery.biases == ()
    assert other.model.down.bias is None
    torch.testing.assert_close(other.model(x), one.model(x))
    means = model.norm.running_mean - one.model.down.bias
    torch.testing.assert_close(other.model.norm.running_mean, means)


@pytest.mark.parametrize(("name", "changes"), [("llama", {}), ("opt", {"enable_bias": False})])
def test_classes_of_transformers_get_no_new_bias(name, changes):
    model = causal(name, **changes)
    for restorer in (Regression(images=8, refine=0), "moments", "lbyl"):
        pruned = bequest.prune(model, tokens(), 0.5, restorer=restorer, round_to=1, progress=False)
        assert pruned.plan.groups
        assert pruned.plan.surgery.biases == ()
        assert set(pruned.model.state_dict()) == set(model.state_dict())

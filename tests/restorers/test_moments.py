"""The moments are those of the integrals; the solution is that of a naive regression on them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import bequest
from bequest.errors import UsageError
from bequest.graph.units import Activation
from bequest.restorers import MomentsRegression
from bequest.restorers.exact import constants
from bequest.restorers.moments import behind, pre_activations
from tests.networks import Plain, randomise
from tests.restorers.units import GELU, IDENTITY, RELU, SIGMOID, assert_exact, halves, make_unit

RELU6 = Activation("relu6", torch.nn.functional.relu6, homogeneous=False)
ODD = Activation("square", torch.square, homogeneous=False)


def test_a_batch_norm_tells_means_and_deviations_and_the_filters_correlations():
    unit = make_unit(n=6, d=9)
    unit.producer.norm.gamma[2] *= -1
    centre, roots = pre_activations(unit.producer)
    norm, w = unit.producer.norm, unit.producer.weight
    cosine = torch.nn.functional.cosine_similarity(w[:, None], w[None], dim=2)
    assert torch.equal(centre, norm.beta)
    torch.testing.assert_close(roots @ roots.T, torch.outer(norm.gamma, norm.gamma) * cosine)


def test_without_batch_norm_filters_and_biases_tell_them():
    producer = make_unit(n=6, d=9, norm=False, bias=True).producer
    centre, roots = pre_activations(producer)
    assert torch.equal(centre, producer.bias)
    assert torch.equal(roots, producer.weight)


def test_a_centred_relu_has_the_arc_cosine_covariance():
    """Cho & Saul, 2009: E[relu(x)·relu(y)] = (√(1 − ρ²) + ρ·(π − arccos ρ)) / 2π."""
    angle = torch.linspace(0, math.pi, 33, dtype=torch.float64)
    roots = torch.stack([angle.cos(), angle.sin()], 1)
    mean, covariance = behind(RELU, torch.zeros(33, dtype=torch.float64), roots)
    r = (roots @ roots.T).clamp(-1, 1)
    product = ((1 - r.square()).sqrt() + r * (math.pi - r.arccos())) / (2 * math.pi)
    torch.testing.assert_close(
        mean, torch.full_like(mean, (2 * math.pi) ** -0.5), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(covariance, product - 1 / (2 * math.pi), rtol=0, atol=1e-4)
    exact = 0.5 - 1 / (2 * math.pi)
    assert (covariance.diagonal() - exact).abs().max() < 1e-5


def test_a_polynomial_is_exact():
    """Cov[x², y²] = 2ρ² + 4·μ_x·μ_y·ρ in units of the deviations."""
    roots = torch.tensor([[1.0, 0.0], [1.2, 1.6]], dtype=torch.float64)
    centre = torch.tensor([0.5, -1.0], dtype=torch.float64)
    mean, covariance = behind(ODD, centre, roots)
    c = roots @ roots.T
    torch.testing.assert_close(mean, centre.square() + c.diagonal())
    torch.testing.assert_close(covariance, 2 * c.square() + 4 * torch.outer(centre, centre) * c)


@pytest.mark.parametrize(
    ("activation", "tolerance"), [(RELU, 1e-3), (GELU, 1e-6), (SIGMOID, 1e-6), (RELU6, 1e-3)]
)
@pytest.mark.parametrize("rho", [-0.99, -0.5, 0.0, 0.7, 0.97])
def test_each_pair_has_the_moments_of_a_double_integral(activation, tolerance, rho):
    scale = torch.tensor([0.7, 1.6], dtype=torch.float64)
    centre = torch.tensor([0.4, -0.9], dtype=torch.float64)
    directions = torch.tensor([[1, 0], [rho, (1 - rho**2) ** 0.5]], dtype=torch.float64)
    mean, covariance = behind(activation, centre, scale[:, None] * directions)
    grid = torch.linspace(-9, 9, 1801, dtype=torch.float64)
    weight = (-grid.square() / 2).softmax(0)
    first = activation.apply(centre[0] + scale[0] * grid)
    inner = activation.apply(
        centre[1] + scale[1] * (rho * grid[:, None] + (1 - rho**2) ** 0.5 * grid)
    )
    means = weight @ first, weight @ (inner @ weight)
    product = (weight * first) @ (inner @ weight)
    assert (mean - torch.stack(means)).abs().max() < 2e-5
    assert abs(float(covariance[0, 1] - (product - means[0] * means[1]))) < tolerance


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("activation", [RELU, GELU])
def test_the_solution_is_that_of_a_naive_ridge_regression(activation, norm):
    unit = make_unit(n=12, activation=activation, norm=norm, bias=not norm)
    kept, removed = halves(12, 7)
    given = MomentsRegression(ridge=0.05).deliver(unit, kept, removed, seed=0)
    mean, c = behind(activation, *pre_activations(unit.producer))
    for row, j in enumerate(removed.tolist()):
        among = c[kept][:, kept]
        ridge = 0.05 * among.diagonal().mean() * torch.eye(7, dtype=torch.float64)
        s = torch.linalg.solve(among + ridge, c[kept, j])
        torch.testing.assert_close(given.matrix[row], s)
        torch.testing.assert_close(given.offset[row], mean[j] - s @ mean[kept])


@pytest.mark.parametrize("activation", [RELU, GELU, IDENTITY])
@pytest.mark.parametrize("norm", [True, False])
def test_duplicates_and_multiples_are_exact(activation, norm):
    unit = make_unit(n=8, activation=activation, norm=norm, bias=True)
    factor = 2.0 if activation.homogeneous else 1.0
    w, b = unit.producer.weight, unit.producer.bias
    for j in (5, 6, 7):
        w[j], b[j] = w[j - 5], b[j - 5]
        if norm:
            for field in ("gamma", "beta", "mean", "var"):
                values = getattr(unit.producer.norm, field)
                values[j] = values[j - 5]
            unit.producer.norm.gamma[j] *= factor
            unit.producer.norm.beta[j] *= factor
        else:
            w[j] *= factor
            b[j] *= factor
    kept, removed = torch.arange(5), torch.arange(5, 8)
    given = MomentsRegression().deliver(unit, kept, removed, seed=0)
    assert_exact(unit, kept, removed, given, tolerance=1e-6)


def test_linearly_dependent_channels_are_exact_without_activation():
    unit = make_unit(n=10, d=6, activation=IDENTITY)
    kept, removed = halves(10, 7)
    given = MomentsRegression().deliver(unit, kept, removed, seed=0)
    assert_exact(unit, kept, removed, given)


@pytest.mark.parametrize("dead", ["gamma", "filter"])
def test_dead_channels_leave_their_constants(dead):
    unit = make_unit(n=9)
    kept, removed = torch.arange(5), torch.arange(5, 9)
    if dead == "gamma":
        unit.producer.norm.gamma[[1, 6, 7]] = 0
    else:
        unit.producer.weight[[1, 6, 7]] = 0
    unit.producer.norm.beta[[1, 6, 7]] = torch.tensor([0.5, 0.3, -0.4]).double()
    given = MomentsRegression().deliver(unit, kept, removed, seed=0)
    _, value = constants(unit)
    taken = given.matrix @ value[kept]
    assert given.matrix[:, [0, 2, 3, 4]][1:3].abs().max() == 0
    torch.testing.assert_close(taken[1:3] + given.offset[1:3], value[[6, 7]])
    assert given.matrix[[0, 3], 1].abs().max() == 0  # a constant explains nothing


def test_only_constants_kept_leaves_the_means():
    unit = make_unit(n=4)
    unit.producer.norm.gamma[:2] = 0
    given = MomentsRegression().deliver(unit, torch.arange(2), torch.arange(2, 4), seed=0)
    mean, _ = behind(RELU, *pre_activations(unit.producer))
    assert given.matrix.abs().max() == 0
    torch.testing.assert_close(given.offset, mean[2:])


def test_channels_that_never_fire_are_no_obstacle():
    unit = make_unit(n=6)
    unit = replace(unit, activation=RELU)
    unit.producer.norm.beta[:] = -1e3
    given = MomentsRegression().deliver(unit, torch.arange(3), torch.arange(3, 6), seed=0)
    assert given.matrix.isfinite().all()


def test_filters_in_other_units_change_nothing():
    unit, other = make_unit(n=9), make_unit(n=9)
    other.producer.weight.mul_(1e3)
    other.producer.norm.gamma.mul_(1e-4)
    other.producer.norm.beta.mul_(1e-4)
    kept, removed = halves(9, 5)
    first, second = (MomentsRegression().deliver(u, kept, removed, seed=0) for u in (unit, other))
    torch.testing.assert_close(first.matrix, second.matrix)
    torch.testing.assert_close(first.offset, 1e4 * second.offset)


def test_it_goes_by_its_name():
    model, x = randomise(Plain()), torch.zeros(1, 3, 8, 8)
    pruned = bequest.prune(model, x, 0.5, restorer="moments", round_to=1)
    assert {one.restored_by for one in pruned.plan.groups} == {"moments"}


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("inf"), float("nan")])
def test_a_ridge_that_is_none_is_refused(ridge):
    with pytest.raises(UsageError, match="expected ridge > 0"):
        MomentsRegression(ridge=ridge)

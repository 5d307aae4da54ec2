import pytest
import torch

from bequest.restorers import LBYL
from tests.restorers.units import halves, make_unit


def published(unit, kept, j, lambda1, lambda2):
    """t of one filter with the published code's departures from the formulas."""
    norm = unit.producer.norm
    kappa = (norm.gamma[j] / norm.gamma[kept]) * (norm.var[kept] / norm.var[j])
    a = norm.mean[kept] - norm.var[kept] * norm.beta[kept] / norm.gamma[kept]
    c = norm.mean[j] - norm.var[j] * norm.beta[j] / norm.gamma[j]
    g = (norm.gamma[j] / norm.var[j]) ** 2
    X, w = unit.producer.weight[kept].T, unit.producer.weight[j]
    everywhere = lambda1 * g * (a @ a) * torch.eye(len(kept), dtype=torch.float64)
    system = X.T @ X + everywhere + lambda2 * torch.diag(kappa**2)
    return torch.linalg.solve(system, X.T @ w + lambda1 * g * c * a)


@pytest.mark.parametrize("d", [4, 40])
@pytest.mark.parametrize(("lambda1", "lambda2"), [(1e-5, 1e-2), (0.0, 0.1), (1e-2, 0.0)])
def test_with_batch_norm_it_equals_one_dense_solve_per_filter(d, lambda1, lambda2):
    unit, (kept, removed) = make_unit(n=12, d=d), halves(12, 7)
    given = LBYL(lambda1, lambda2, compat="official").deliver(unit, kept, removed, seed=0)
    for t, j in zip(given.matrix, removed, strict=True):
        expected = published(unit, kept, j, lambda1, lambda2)
        torch.testing.assert_close(t, expected, rtol=1e-8, atol=1e-8)
    assert given.notes == ()


def test_a_bias_before_the_batch_norm_moves_its_mean():
    with_bias, (kept, removed) = make_unit(n=12, bias=True), halves(12, 7)
    without = make_unit(n=12)
    without.producer.weight.copy_(with_bias.producer.weight)
    for field in ("gamma", "beta", "var"):
        getattr(without.producer.norm, field).copy_(getattr(with_bias.producer.norm, field))
    without.producer.norm.mean.copy_(with_bias.producer.norm.mean - with_bias.producer.bias)
    config = LBYL(1e-2, 1e-2, compat="official")
    torch.testing.assert_close(
        config.deliver(with_bias, kept, removed, seed=0).matrix,
        config.deliver(without, kept, removed, seed=0).matrix,
    )


@pytest.mark.parametrize("lambda2", [0.0, 0.3])
def test_a_linear_layer_gets_an_intercept_that_is_dropped(lambda2):
    # The intercept as one more column of ones, without a ridge of its own.
    unit, (kept, removed) = make_unit(n=12, kind="linear", norm=False, bias=True), halves(12, 7)
    rows = torch.cat([unit.producer.weight, unit.producer.bias[:, None]], dim=1)
    X = torch.cat([rows[kept].T, torch.ones(rows.shape[1], 1, dtype=torch.float64)], dim=1)
    ridge = lambda2 * torch.eye(8, dtype=torch.float64)
    ridge[-1, -1] = 0
    given = LBYL(lambda2=lambda2, compat="official").deliver(unit, kept, removed, seed=0)
    for t, j in zip(given.matrix, removed, strict=True):
        expected = torch.linalg.solve(X.T @ X + ridge, X.T @ rows[j])[:-1]
        torch.testing.assert_close(t, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("norm", [True, False])
def test_defaults_are_a_published_pair(norm):
    unit, (kept, removed) = make_unit(n=12, kind="linear", norm=norm), halves(12, 7)
    written = LBYL(1e-5, 1e-2 if norm else 0.3, "official").deliver(unit, kept, removed, seed=0)
    found = LBYL(compat="official").deliver(unit, kept, removed, seed=0)
    assert torch.equal(found.matrix, written.matrix)


@pytest.mark.parametrize("dead", ["gamma", "var"])
def test_dead_channels_stay_finite_and_are_noted(dead):
    unit = make_unit(n=8)
    getattr(unit.producer.norm, dead)[[1, 6]] = 0
    given = LBYL(compat="official").deliver(unit, torch.arange(4), torch.arange(4, 8), seed=0)
    assert given.matrix.isfinite().all()
    assert given.notes[0].startswith("2 channels")

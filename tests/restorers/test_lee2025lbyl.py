from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bequest.errors import UsageError
from bequest.restorers import LBYL
from bequest.restorers.lee2025lbyl import BIAS, RIDGE
from tests.restorers.units import GELU, SIGMOID, halves, make_unit


def terms(unit, kept, j):
    """κ, a, c and γ/σ of removed channel j, from the paper's definitions."""
    norm, sigma = unit.producer.norm, unit.producer.norm.sigma
    mean = norm.mean if unit.producer.bias is None else norm.mean - unit.producer.bias
    kappa = (norm.gamma[j] / norm.gamma[kept]) * (sigma[kept] / sigma[j])
    a = mean[kept] - sigma[kept] * norm.beta[kept] / norm.gamma[kept]
    c = mean[j] - sigma[j] * norm.beta[j] / norm.gamma[j]
    return kappa, a, c, norm.gamma[j] / sigma[j]


def loss(unit, kept, j, t, lambda1, lambda2):
    """L(t) as the paper writes it."""
    kappa, a, c, slope = terms(unit, kept, j)
    residual = unit.producer.weight[j] - t @ unit.producer.weight[kept]
    bias_error = slope * (a @ t - c)
    return residual @ residual + lambda1 * bias_error**2 + lambda2 * (kappa * t).square().sum()


def solution(unit, kept, j, lambda1, lambda2):
    """κ∘t*, t* from one dense solve per filter."""
    kappa, a, c, slope = terms(unit, kept, j)
    X, w, g = unit.producer.weight[kept].T, unit.producer.weight[j], slope**2
    system = X.T @ X + lambda1 * g * torch.outer(a, a) + lambda2 * torch.diag(kappa**2)
    return kappa * torch.linalg.solve(system, X.T @ w + lambda1 * g * c * a)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 16),
    d=st.sampled_from([3, 40]),
    bias=st.booleans(),
    lambda1=st.sampled_from([0.0, 1e-6, 1e-2, 3.0]),
    lambda2=st.sampled_from([1e-4, 1e-2, 2.0]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_explicit_lambdas_equal_one_dense_solve_per_filter(
    n, d, bias, lambda1, lambda2, seed, data
):
    unit = make_unit(n=n, d=d, bias=bias, seed=seed)
    unit.producer.norm.gamma[0] *= -1
    kept, removed = halves(n, data.draw(st.integers(1, n - 1)))
    matrix = LBYL(lambda1, lambda2).deliver(unit, kept, removed, seed=0).matrix
    for s, j in zip(matrix, removed, strict=True):
        torch.testing.assert_close(
            s, solution(unit, kept, j, lambda1, lambda2), rtol=1e-8, atol=1e-8
        )


@pytest.mark.parametrize("d", [4, 40])
@pytest.mark.parametrize("lambda1", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("lambda2", [0.0, 1e-2, 1.0])
def test_the_gradient_of_the_loss_vanishes(d, lambda1, lambda2):
    # Also where λ2 = 0 and more filters are kept than there are dimensions.
    unit, (kept, removed) = make_unit(n=14, d=d, bias=True), halves(14, 8)
    matrix = LBYL(lambda1, lambda2).deliver(unit, kept, removed, seed=0).matrix
    for s, j in zip(matrix, removed, strict=True):
        kappa, *_ = terms(unit, kept, j)
        t = (s / kappa).requires_grad_()
        loss(unit, kept, j, t, lambda1, lambda2).backward()
        assert t.grad.abs().max() < 1e-9


@pytest.mark.parametrize("d", [4, 8, 40])
@pytest.mark.parametrize("lambda1", [0.0, 1e-1])
def test_no_ridge_is_the_limit_of_a_vanishing_ridge(d, lambda1):
    unit, (kept, removed) = make_unit(n=14, d=d), halves(14, 8)
    limit = LBYL(lambda1, 0.0).deliver(unit, kept, removed, seed=0).matrix
    close = LBYL(lambda1, 1e-9).deliver(unit, kept, removed, seed=0).matrix
    torch.testing.assert_close(limit, close, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lambda2", [0.0, 0.3])
def test_without_batch_norm_the_bias_is_one_more_entry(kind, bias, lambda2):
    unit, (kept, removed) = make_unit(n=12, kind=kind, norm=False, bias=bias), halves(12, 7)
    b = unit.producer.bias if bias else torch.zeros(12, dtype=torch.float64)
    rows = torch.cat([unit.producer.weight, b[:, None]], dim=1)
    X = rows[kept].T
    matrix = LBYL(lambda1=5.0, lambda2=lambda2).deliver(unit, kept, removed, seed=0).matrix
    for s, j in zip(matrix, removed, strict=True):
        ridge = lambda2 * torch.eye(7, dtype=torch.float64)
        expected = torch.linalg.solve(X.T @ X + ridge, X.T @ rows[j])
        torch.testing.assert_close(s, expected, rtol=1e-8, atol=1e-8)


def test_the_default_is_one_pair_relative_to_the_units_scale():
    unit, (kept, removed) = make_unit(n=12), halves(12, 7)
    size = unit.producer.weight[kept].square().sum(dim=1).mean().item()
    lambda1 = BIAS * size / unit.producer.norm.gamma[kept].square().mean().item()
    written = LBYL(lambda1, RIDGE * size).deliver(unit, kept, removed, seed=0).matrix
    for given_config in (LBYL(), LBYL(lambda1=lambda1), LBYL(lambda2=RIDGE * size)):
        found = given_config.deliver(unit, kept, removed, seed=0).matrix
        torch.testing.assert_close(found, written, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_default_is_scale_free(scale):
    unit, (kept, removed) = make_unit(n=12, activation=SIGMOID), halves(12, 7)
    norm = replace(
        unit.producer.norm,
        mean=unit.producer.norm.mean * scale,
        var=unit.producer.norm.var * scale**2,
        eps=unit.producer.norm.eps * scale**2,
    )
    producer = replace(unit.producer, stored=scale * unit.producer.weight, norm=norm)
    torch.testing.assert_close(
        LBYL().deliver(replace(unit, producers=(producer,)), kept, removed, seed=0).matrix,
        LBYL().deliver(unit, kept, removed, seed=0).matrix,
        rtol=1e-8, atol=1e-10,
    )  # fmt: skip


def test_explicit_lambdas_leave_duplicates_to_the_loss():
    unit = make_unit(n=4, norm=False)
    unit.producer.weight[3] = unit.producer.weight[0]
    kept, removed = torch.arange(3), torch.tensor([3])
    found = LBYL().deliver(unit, kept, removed, seed=0).matrix
    assert found[0].tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert LBYL(lambda2=1.0).deliver(unit, kept, removed, seed=0).matrix.count_nonzero() == 3


@pytest.mark.parametrize("config", [LBYL(), LBYL(1e-3, 1e-2), LBYL(1e-3, 0.0)])
def test_dead_kept_channels_are_out_of_the_basis(config):
    unit = make_unit(n=10, activation=GELU)
    unit.producer.norm.gamma[1] = 1e-9
    unit.producer.norm.var[4] = 1e-9
    alive = torch.tensor([0, 2, 3, 5])
    smaller = replace(unit, size=8, producers=(_without(unit.producer, [1, 4]),))
    kept, removed = torch.arange(6), torch.arange(6, 10)
    found = config.deliver(unit, kept, removed, seed=0).matrix
    expected = config.deliver(smaller, torch.arange(4), torch.arange(4, 8), seed=0).matrix
    assert not found[:, [1, 4]].any()
    torch.testing.assert_close(found[:, alive], expected)


def _without(producer, channels):
    left = [i for i in range(len(producer.weight)) if i not in channels]
    norm = producer.norm
    parts = {f: getattr(norm, f)[left] for f in ("gamma", "beta", "mean", "var")}
    return replace(producer, stored=producer.weight[left], norm=replace(norm, **parts))


def test_if_all_kept_channels_are_constant_the_others_leave_nothing():
    unit = make_unit(n=4)
    unit.producer.norm.gamma[:2] = 0
    given_delivery = LBYL(1e-3, 1e-2).deliver(unit, torch.arange(2), torch.arange(2, 4), seed=0)
    assert not given_delivery.matrix.any()
    assert given_delivery.offset is None


@pytest.mark.parametrize(
    "fields",
    [
        {"lambda1": -1.0},
        {"lambda2": float("nan")},
        {"lambda2": float("inf")},
        {"compat": "offical"},
    ],
)
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        LBYL(**fields)

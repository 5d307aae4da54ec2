"""The regression of one layer: that of a naive solve, and nothing where there is nothing to fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bequest.calibration.moments import Moments
from bequest.calibration.patches import channel_major, outputs_at, patches
from bequest.graph.geometry import LAYERS, Geometry, geometry_of
from bequest.graph.trace import operator_of, trace
from bequest.restorers.normal_equations import solve
from tests.restorers.layers import CASES

LINEAR = Geometry(linear=True)


def traced_geometry(layer, x):
    (node,) = (n for n in trace(layer, x).nodes if operator_of(n) in LAYERS)
    return geometry_of(node)


def moments_of(layer, x, target, geometry=LINEAR, chunks=1):
    moments = Moments(geometry, layer.weight, layer.bias)
    with torch.no_grad():
        moments.add(geometry, x.chunk(chunks), target.chunk(chunks))
    return moments


def naive(x, e, ridge, about_mean=True):
    """Ridge regression of errors e (m, o) on rows x (m, d), in float64; ΔW (o, d)."""
    a, b = (x - x.mean(0), e - e.mean(0)) if about_mean else (x, e)
    raised = max(1, 32 * a.shape[1] / len(a))  # fewer than 32 rows per unknown
    penalty = raised * ridge * (x - x.mean(0)).square().sum(0).mean()
    return torch.linalg.solve(a.T @ a + penalty * torch.eye(a.shape[1]).to(a), a.T @ b).T


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda v: str(v).replace(" ", ""))
@pytest.mark.parametrize("offset", [1.0, 1e6])
def test_the_solution_is_that_of_a_naive_ridge_regression(layer, shape, offset):
    layer = layer.double()
    x = torch.randn(3 * shape[0], *shape[1:], dtype=torch.float64) + offset
    target = layer(x) + torch.randn_like(layer(x))
    geometry = traced_geometry(layer, x[: shape[0]])
    change, intercepts, *_ = solve([moments_of(layer, x, target, geometry, chunks=3)], ridge=0.1)
    rows = patches(geometry, x, target.shape)
    rows = rows[:, :, channel_major(geometry, rows.shape[2])]
    errors = outputs_at(geometry, target - layer(x))
    for group, (a, e) in enumerate(zip(rows, errors, strict=True)):
        expected = naive(a, e, 0.1)
        torch.testing.assert_close(change[group], expected, rtol=1e-6, atol=1e-9)
        constant = e.mean(0) - expected @ a.mean(0)
        torch.testing.assert_close(intercepts[0][group], constant, rtol=1e-5, atol=1e-9)


def test_fewer_samples_than_unknowns_raise_the_ridge():
    layer = nn.Linear(8, 3).double()
    x, target = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    solution = solve([moments_of(layer, x, target)], ridge=0.1)
    assert solution.ridge == pytest.approx(0.1 * 64)  # half a row per unknown, where 32 are enough
    torch.testing.assert_close(solution.change[0], naive(x, target - layer(x), 0.1))


def test_without_intercept_the_regression_is_about_zero():
    layer = nn.Linear(6, 3, bias=False).double()
    x = torch.randn(500, 6, dtype=torch.float64) + 2
    target = layer(x) + torch.randn(500, 3, dtype=torch.float64)
    solution = solve([moments_of(layer, x, target)], ridge=0.1, intercept=False)
    expected = naive(x, target - layer(x), 0.1, about_mean=False)
    torch.testing.assert_close(solution.change[0], expected, rtol=1e-8, atol=1e-10)
    assert solution.intercepts == ()


def test_calls_with_biases_of_their_own_share_one_change_of_the_weight():
    layers = nn.Linear(5, 4).double(), nn.Linear(5, 4).double()
    layers[1].weight = layers[0].weight
    xs = [torch.randn(300, 5, dtype=torch.float64) + shift for shift in (0, 7)]
    errors = [torch.randn(300, 4, dtype=torch.float64) + shift for shift in (1, -3)]
    moments = [
        moments_of(layer, x, layer(x) + e) for layer, x, e in zip(layers, xs, errors, strict=True)
    ]
    change, intercepts, *_ = solve(moments, ridge=0.1)
    # Each call about its own means, all rows together.
    a = torch.cat([x - x.mean(0) for x in xs])
    b = torch.cat([e - e.mean(0) for e in errors])
    expected = naive(a, b, 0.1, about_mean=False)
    torch.testing.assert_close(change[0], expected, rtol=1e-8, atol=1e-10)
    for intercept, x, e in zip(intercepts, xs, errors, strict=True):
        torch.testing.assert_close(intercept[0], e.mean(0) - expected @ x.mean(0))


@pytest.mark.parametrize("offset", [0.0, 30.0, 1e3, 1e4])
def test_single_precision_is_enough_far_from_zero(offset):
    layer = nn.Linear(16, 4)
    wide = nn.Linear(16, 4).double()
    wide.load_state_dict(layer.state_dict())
    x = torch.randn(4000, 16) + offset
    target = x[:, :4] - x[:, 4:8] + 1e-3 * offset
    found = solve([moments_of(layer, x, target, chunks=5)], ridge=1e-2).change
    expected = solve([moments_of(wide, x.double(), target.double())], ridge=1e-2).change
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ridge", [1e-2, 1e-9, 0.0])
@pytest.mark.parametrize("level", [0.0, 1.0, 1e3])
def test_inputs_that_only_rounding_varies_leave_the_weight_alone(level, ridge, dtype):
    layer = nn.Linear(16, 4).to(dtype)
    noise = torch.randn(4000, 16, dtype=dtype) * torch.finfo(dtype).eps
    x = level * (1 + noise)
    target = layer(x).detach() + 2 + torch.randn(4000, 4, dtype=dtype)
    solution = solve([moments_of(layer, x, target)], ridge)
    assert solution.constant == 16
    assert not solution.change.any()
    missing = (target - layer(x)).double().mean(0)
    torch.testing.assert_close(solution.intercepts[0][0], missing, rtol=0, atol=1e-2)


def test_dependent_inputs_without_a_ridge_are_solved_by_eigenvalues():
    layer = nn.Linear(6, 3).double()
    x = torch.randn(400, 3, dtype=torch.float64) @ torch.randn(3, 6, dtype=torch.float64)
    target = layer(x) + x[:, :3]
    solution = solve([moments_of(layer, x, target)], ridge=0.0)
    assert solution.change.isfinite().all()
    assert solution.change.abs().max() < 100
    left = target - layer(x) - x @ solution.change[0].T - solution.intercepts[0]
    assert left.square().mean() < 1e-6

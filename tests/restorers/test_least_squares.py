import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bequest.restorers.least_squares import BiasTerm, least_norm, ridge


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(p=st.integers(1, 12), d=st.integers(1, 20), r=st.integers(1, 9))
def test_ridge_solves_every_system_as_a_loop_would(p, d, r):
    X, right = normal(p, d), normal(r, p)
    penalty, strength = torch.rand(p).double() + 0.1, torch.rand(r).double() + 0.1
    b, beta, c = normal(p), normal(r), torch.rand(r).double()
    plain = ridge(X @ X.T, penalty, strength, right)
    biased = ridge(X @ X.T, penalty, strength, right, BiasTerm(b, beta, c))
    for j in range(r):
        system = X @ X.T + strength[j] * penalty.diag()
        expected = torch.linalg.solve(system, right[j])
        torch.testing.assert_close(plain[j], expected, rtol=1e-8, atol=1e-10)
        system += c[j] * torch.outer(b, b)
        expected = torch.linalg.solve(system, right[j] + c[j] * beta[j] * b)
        torch.testing.assert_close(biased[j], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("p", "d"), [(5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_least_norm_agrees_with_the_pseudo_inverse(p, d, weight):
    X, w, b, beta = normal(p, d), normal(4, d), normal(p), normal(4)
    c = weight * torch.arange(1, 5).double()
    found = least_norm(X, w, 1e-13, BiasTerm(b, beta, c))
    for j in range(4):
        # One least-squares system whose last equation is the bias, weighted with sqrt(c).
        A = torch.cat([X.T, c[j].sqrt() * b[None]])
        y = torch.cat([w[j], c[j].sqrt() * beta[j : j + 1]])
        torch.testing.assert_close(found[j], torch.linalg.pinv(A) @ y, rtol=1e-8, atol=1e-9)


def test_least_norm_of_dependent_rows_shares_the_bias_out_within_their_range():
    X = normal(4, 2) @ normal(2, 12)  # 4 filters of rank 2
    b = X @ normal(12)  # and biases that depend in the same way
    w, beta, c = normal(3, 12), normal(3), torch.tensor([0.5, 1.0, 2.0]).double()
    found = least_norm(X, w, 1e-12, BiasTerm(b, beta, c))
    for j in range(3):
        A = torch.cat([X.T, c[j].sqrt() * b[None]])
        y = torch.cat([w[j], c[j].sqrt() * beta[j : j + 1]])
        expected = torch.linalg.pinv(A, rtol=1e-10) @ y
        torch.testing.assert_close(found[j], expected, rtol=1e-8, atol=1e-9)


def test_least_norm_of_zero_rows_is_zero():
    assert not least_norm(torch.zeros(3, 5).double(), normal(2, 5), 1e-13).any()

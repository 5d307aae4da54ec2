from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from bequest.robust.intervals import Interval

NUMBERS = st.floats(-10, 10)


def interval(a, b):
    ends = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    return Interval(torch.minimum(*ends), torch.maximum(*ends))


def points(x):
    return x.lower + (x.upper - x.lower) * torch.linspace(0, 1, 7, dtype=torch.float64)


def holds(x, values):
    return bool(((x.lower - 1e-9 <= values) & (values <= x.upper + 1e-9)).all())


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_sums_differences_and_products_hold_those_of_all_members(a, b, c, d):
    x, y = interval(a, b), interval(c, d)
    left, right = points(x)[:, None], points(y)

    assert holds(x + y, left + right)
    assert holds(x - y, left - right)
    assert holds(x * y, left * right)
    assert holds(x.scaled(right[:1]), left * right[0])
    assert holds(x.hull(y), left) and holds(x.hull(y), right)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_what_two_intervals_share_stays(a, b, c):
    x, y = interval(a, b), interval(a, c)

    assert holds(x.meet(y), torch.tensor([a], dtype=torch.float64))


def test_the_ends_of_a_weighted_sum_are_reached():
    """w = (2, -3) over [0, 1]x[1, 4]: from 0 - 12 to 2 - 3."""
    x = Interval(torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0, 4.0]).double())
    weight = torch.tensor([[2.0, -3.0]]).double()

    found = x.through(lambda values, by: values @ by.T, weight)

    assert torch.allclose(found.lower, torch.tensor([-12.0]).double())
    assert torch.allclose(found.upper, torch.tensor([-1.0]).double())


def test_a_weighted_sum_is_wider_than_its_own_rounding():
    tenth = torch.full((4096,), 0.1, dtype=torch.float64)
    x = Interval(tenth, tenth)
    weight = torch.randn(1, 4096, dtype=torch.float64)

    found = x.through(lambda values, by: values @ by.T, weight)
    exact = math.fsum(0.1 * w for w in weight[0].tolist())

    assert found.lower < exact < found.upper


def test_what_is_not_known_is_infinite():
    ends = torch.tensor([torch.nan, 1.0]).double()

    found = Interval.known(ends, ends)

    assert found.lower.tolist() == [-torch.inf, 1.0]
    assert found.upper.tolist() == [torch.inf, 1.0]
    assert not found.bounded

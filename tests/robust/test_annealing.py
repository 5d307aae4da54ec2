from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bequest.robust.annealing import Greedy, Stochastic, entropy, scores, spread
from bequest.robust.intervals import Interval


def impacts(lower, upper):
    return Interval(torch.tensor(lower).double(), torch.tensor(upper).double())


def test_width_and_entropy_of_intervals_that_can_be_checked_by_eye():
    """Outputs 0 and 1 alike, 2 apart: p = (2/3, 2/3, 1/3)."""
    found = impacts([[-1.0, -1.0, 5.0]], [[1.0, 1.0, 9.0]])
    expected = -2 * (2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)

    assert spread(found).item() == 2 + 2 + 4
    assert entropy(found).item() == pytest.approx(expected)


def test_equal_changes_of_all_outputs_have_no_entropy():
    assert entropy(impacts([[2.0] * 4], [[3.0] * 4])).item() == 0


def test_no_change_at_all_has_no_score():
    assert scores(impacts([[0.0] * 4], [[0.0] * 4]), 0.75) == [0.0]


def test_the_score_weighs_width_against_evenness():
    even, uneven = ([[-3.0, -3.0]], [[3.0, 3.0]]), ([[-1.0, 0.0]], [[1.0, 0.0]])

    assert scores(impacts(*uneven), 1.0) < scores(impacts(*even), 1.0)
    assert scores(impacts(*even), 0.0) < scores(impacts(*uneven), 0.0)


def test_greedy_takes_the_best_of_its_pool():
    greedy = Greedy(factor=2)

    assert greedy.pool(2, 10) == 4
    assert greedy.pool(8, 10) == 10
    assert greedy.choose([4.0, 1.0, 3.0, 2.0], 2, 1.0, np.random.default_rng(0)) == [1, 3]


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=40),
    st.data(),
    st.floats(1e-9, 1),
    st.integers(0, 2**32 - 1),
)
def test_annealing_always_ends_with_as_many_pairs_as_wanted(found, data, temperature, seed):
    wanted = data.draw(st.integers(1, len(found)))

    chosen = Stochastic().choose(found, wanted, temperature, np.random.default_rng(seed))
    again = Stochastic().choose(found, wanted, temperature, np.random.default_rng(seed))

    assert len(set(chosen)) == len(chosen) == wanted
    assert chosen == again


def test_a_cold_annealing_takes_the_best_and_a_hot_one_the_least_salient():
    found = [5.0, 3.0, 1.0, 4.0]
    random = np.random.default_rng(0)

    assert Stochastic().choose(found, 2, 1e-6, random) == [2, 1]
    assert Stochastic().choose(found, 2, 1e9, random) == [0, 1]

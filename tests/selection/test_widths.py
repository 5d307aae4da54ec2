import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bequest
from bequest.errors import UsageError
from bequest.selection.ratio import check_ratio, kept_count
from tests.networks import Plain, Residual, randomise

X = torch.randn(1, 3, 8, 8)


@given(st.integers(1, 2048), st.floats(0, 0.999))
def test_without_rounding_the_floor_is_kept_and_at_least_one(size, ratio):
    expected = size if ratio == 0 else max(1, math.floor(size * (1 - ratio) + 1e-6))
    assert kept_count(size, ratio, 1) == expected


@pytest.mark.parametrize(
    ("size", "ratio", "kept"),
    [(64, 0.5, 32), (64, 0.3, 48), (64, 0.32, 40), (16, 0.9, 8), (15, 0.5, 7), (20, 0.0, 20),
     (100, 0.01, 96), (24, 0.02, 24)],
)  # fmt: skip
def test_widths_become_the_nearest_multiple_of_eight(size, ratio, kept):
    assert kept_count(size, ratio, 8) == kept


@given(st.integers(1, 4096), st.floats(0, 0.999), st.integers(1, 64))
def test_rounded_widths_are_multiples_within_the_group(size, ratio, round_to):
    kept = kept_count(size, ratio, round_to)
    assert 1 <= kept <= size
    if ratio and size >= 2 * round_to:
        assert kept % round_to == 0 or kept == size


@pytest.mark.parametrize(
    "ratio", [1, 1.0, -0.1, 2, float("nan"), "half", None, True, {}, {"conv1": 1.0}, {"a": "b"}]
)
def test_ratios_out_of_range_are_wrong_calls(ratio):
    with pytest.raises(UsageError, match="ratio"):
        check_ratio(ratio)


def test_the_first_pattern_counts_and_no_match_means_not_pruned():
    model = randomise(Plain(16))
    pruned = bequest.prune(model, X, {"conv1": 0.25, "conv*": 0.5, "nothing": 0.9}, round_to=1)
    assert {one.name: one.kept for one in pruned.plan.groups} == {"conv1": 12, "conv2": 12}
    assert [one.group for one in pruned.plan.refused] == ["nothing"]
    only = bequest.prune(model, X, {"conv2": 0.5}, round_to=1)
    assert [one.name for one in only.plan.groups] == ["conv2"]


def test_a_group_is_matched_by_any_of_its_producers():
    pruned = bequest.prune(randomise(Residual()), X, {"conv2.1": 0.5}, groups="all", round_to=1)
    (stream,) = pruned.plan.groups
    assert set(stream.producers) == {"stem", "conv2.0", "conv2.1"}
    assert stream.kept == 8


def test_residual_streams_are_left_alone_unless_asked_for():
    pruned = bequest.prune(randomise(Residual()), X, 0.5)
    assert {one.kind for one in pruned.plan.groups} == {"inner"}
    assert any("groups 'all'" in one.reason for one in pruned.plan.refused)


def test_the_output_is_pruned_only_when_named_in_full():
    model = randomise(Plain())
    for ratio in (0.5, {"*": 0.5}, {"f?": 0.5}):
        assert bequest.prune(model, X, ratio).model(X).shape == (1, 5)
    assert bequest.prune(model, X, {"fc": 0.4}, round_to=1).model(X).shape == (1, 3)


def test_the_largest_scores_stay():
    model = randomise(Plain(16))
    norms = model.conv1.weight.detach().double().abs().flatten(1).sum(1)
    removed = bequest.prune(model, X, {"conv1": 0.5}, criterion="l1", round_to=1).plan.groups[0]
    expected = np.sort(norms.argsort()[:8].numpy())
    assert list(removed.removed) == expected.tolist()


def test_global_scope_moves_channels_between_groups_and_loses_as_many():
    model = randomise(Plain(24))
    with torch.no_grad():
        model.conv2.weight[:16] *= 1e-3  # sixteen of conv2's filters are hardly there
    pruned = bequest.prune(model, X, 0.5, scope="global", round_to=1)
    kept = {one.name: one.kept for one in pruned.plan.groups}
    assert kept["conv2"] < 12 < kept["conv1"]
    assert sum(kept.values()) == 24


def test_random_scores_follow_the_seed():
    model = randomise(Plain())
    first, second, other = (
        bequest.prune(model, X, 0.5, criterion="random", seed=seed).plan.groups
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other

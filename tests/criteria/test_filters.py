"""Criteria that look at one filter, or at the filters of one layer, against plain loops."""

import pytest
import torch

from bequest import criteria
from bequest.criteria.base import Unscorable
from tests.restorers.units import make_unit


def row(unit, i):
    """The row that the published protocol compares: a linear one includes its bias."""
    weights = unit.producer.weight[i].tolist()
    if unit.producer.kind == "linear" and unit.producer.bias is not None:
        weights.append(unit.producer.bias[i].item())
    return weights


@pytest.fixture(params=[("conv", True), ("conv", False), ("linear", True), ("linear", False)])
def unit(request):
    kind, bias = request.param
    return make_unit(kind=kind, bias=bias, norm=False)


def test_l1_is_the_sum_of_absolute_weights(unit):
    expected = [sum(abs(w) for w in row(unit, i)) for i in range(unit.size)]
    assert criteria.L1().score(unit, seed=0).tolist() == pytest.approx(expected)


def test_l2_is_the_euclidean_norm(unit):
    expected = [sum(w * w for w in row(unit, i)) ** 0.5 for i in range(unit.size)]
    assert criteria.L2().score(unit, seed=0).tolist() == pytest.approx(expected)


def test_geometric_median_is_the_summed_distance_to_all_others(unit):
    def distance(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5

    rows = [row(unit, i) for i in range(unit.size)]
    expected = [sum(distance(a, b) for b in rows) for a in rows]
    assert criteria.GeometricMedian().score(unit, seed=0).tolist() == pytest.approx(expected)


def test_geometric_median_keeps_the_outlier():
    unit = make_unit()
    unit.producer.weight[4] += 100
    assert criteria.GeometricMedian().score(unit, seed=0).argmax() == 4


def test_bn_scale_is_the_magnitude_of_gamma():
    unit = make_unit()
    unit.producer.norm.gamma[2] *= -1
    expected = unit.producer.norm.gamma.abs()
    assert torch.equal(criteria.BNScale().score(unit, seed=0), expected)


def test_bn_scale_needs_a_batch_norm():
    with pytest.raises(Unscorable, match="no batch norm follows unit"):
        criteria.BNScale().score(make_unit(norm=False), seed=0)


def test_random_repeats_itself_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first = criteria.Random().score(make_unit(), seed=3)
    assert torch.equal(criteria.Random().score(make_unit(), seed=3), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_differs_between_seeds_and_units():
    draws = [
        criteria.Random().score(make_unit(name=name), seed=seed)
        for name in ("a", "b")
        for seed in (0, 1)
    ]
    for i, one in enumerate(draws):
        assert not any(torch.equal(one, other) for other in draws[i + 1 :])

from dataclasses import replace

import pytest
import torch

from bequest.criteria import Coreset
from bequest.criteria.base import Unscorable, generator
from bequest.criteria.mussay2020coreset import first_arrivals, sensitivity
from bequest.errors import UsageError
from tests.restorers.units import GELU, SIGMOID, make_unit


@pytest.mark.parametrize("activation", [GELU, SIGMOID])
def test_sensitivity_is_the_largest_weight_times_the_activations_bound(activation):
    unit = make_unit(n=6, activation=activation, consumers=((3, 4), (2, 1)))
    weight, bias = unit.producer.folded()
    bounds = []
    for j in range(6):
        largest = max(c.weight[:, j].abs().max().item() for c in unit.consumers)
        norm = (weight[j].square().sum() + bias[j] ** 2).sqrt()
        bounds.append(largest * activation.apply(2.5 * norm).item())
    found = sensitivity("coreset", unit, beta=2.5)
    assert found.tolist() == pytest.approx([b / sum(bounds) for b in bounds])


def sampled_orders(probability, size, runs):
    """The first ``size`` distinct channels of literal sampling with replacement, per run."""
    g = torch.Generator().manual_seed(7)
    draws = torch.multinomial(probability.expand(runs, -1), 400, replacement=True, generator=g)
    return [tuple(dict.fromkeys(line))[:size] for line in draws.tolist()]


def test_arrivals_have_the_law_of_sampling_with_replacement():
    probability = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64)
    runs = 20_000
    stream = torch.Generator().manual_seed(0)
    arrived = [
        tuple(first_arrivals(probability, stream).argsort()[:2].tolist()) for _ in range(runs)
    ]
    literal = sampled_orders(probability, 2, runs)
    for pair in {(i, j) for i in range(4) for j in range(4) if i != j}:
        # Both frequencies have a standard error of at most 0.0033.
        assert abs(arrived.count(pair) - literal.count(pair)) / runs < 0.015


def test_scores_follow_the_order_of_arrival():
    unit = make_unit()
    arrival = first_arrivals(sensitivity("coreset", unit, 1.0), generator(5, unit))
    scores = Coreset().score(unit, seed=5)
    assert scores.argsort(descending=True).tolist() == arrival.argsort().tolist()
    assert not torch.equal(scores, Coreset().score(unit, seed=6))


def test_channels_that_no_consumer_reads_come_last():
    unit = make_unit()
    unit.consumers[0].weight[:, [1, 4]] = 0
    assert set(Coreset().score(unit, seed=0).argsort()[:2].tolist()) == {1, 4}


def test_a_unit_whose_output_nobody_reads_is_sampled_evenly():
    unit = make_unit(n=5)
    unit.consumers[0].weight.zero_()
    assert sensitivity("coreset", unit, 1.0).tolist() == pytest.approx([0.2] * 5)


def test_a_group_that_is_not_a_simple_chain_is_refused():
    with pytest.raises(Unscorable, match="concatenated"):
        Coreset().score(replace(make_unit(), obstacle="concatenated"), seed=0)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_beta_is_a_positive_number(beta):
    with pytest.raises(UsageError, match="beta"):
        Coreset(beta)

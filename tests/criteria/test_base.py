from dataclasses import dataclass, replace

import pytest
import torch

from bequest import config, criteria
from bequest.criteria.base import Criterion, Unscorable
from bequest.errors import BequestError, ModelError
from bequest.graph.units import Unit
from tests.restorers.units import make_unit

NAMES = {"l1", "l2", "geometric-median", "bn-scale", "random", "redundancy", "coreset"}


def stream(*members: Unit) -> Unit:
    """A residual stream that the producers of all members write to."""
    producers = tuple(m.producer for m in members)
    return Unit("stream", members[0].size, producers, None, (), "a residual stream")


def test_every_criterion_is_registered_and_exported():
    assert set(config.names("criterion")) >= NAMES
    exported = {getattr(criteria, name).name for name in criteria.__all__}
    assert exported >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_scores_are_one_float64_per_channel_and_the_unit_is_left_alone(name):
    unit = make_unit(n=12)
    before = unit.producer.weight.clone()
    scores = config.resolve("criterion", name).score(unit, seed=0)
    assert scores.shape == (12,)
    assert scores.dtype == torch.float64
    assert torch.equal(unit.producer.weight, before)


@pytest.mark.parametrize("name", ["l1", "l2", "geometric-median", "bn-scale"])
def test_a_residual_stream_averages_its_producers_scores_over_their_means(name):
    members = [make_unit(seed=seed) for seed in range(3)]
    criterion = config.resolve("criterion", name)
    single = [criterion.score(m, seed=0) for m in members]
    expected = sum(s / s.mean() for s in single) / 3
    torch.testing.assert_close(criterion.score(stream(*members), seed=0), expected)


def test_a_residual_stream_is_indifferent_to_the_scale_of_a_producer():
    first, second = make_unit(seed=0), make_unit(seed=1)
    loud = replace(second.producer, stored=1e3 * second.producer.weight)
    louder = replace(stream(first, second), producers=(first.producer, loud))
    torch.testing.assert_close(
        criteria.L2().score(louder, seed=0), criteria.L2().score(stream(first, second), seed=0)
    )


def test_a_producer_of_zeros_adds_nothing_to_a_stream():
    first, second = make_unit(seed=0), make_unit(seed=1)
    silent = replace(second.producer, stored=torch.zeros_like(second.producer.weight))
    unit = replace(stream(first, second), producers=(first.producer, silent))
    alone = criteria.L2().score(first, seed=0)
    torch.testing.assert_close(criteria.L2().score(unit, seed=0), alone / alone.mean() / 2)


@pytest.mark.parametrize("name", ["l1", "l2", "geometric-median"])
def test_scores_that_are_not_finite_are_refused_by_name(name):
    unit = make_unit(name="layer7")
    unit.producer.weight[3, 2] = torch.nan
    with pytest.raises(ModelError, match="finite values in the scores for layer7"):
        config.resolve("criterion", name).score(unit, seed=0)


def test_a_wrong_number_of_scores_is_a_programming_error():
    @dataclass(frozen=True)
    class Short(Criterion):
        name = "short"

        def _scores(self, unit, seed):
            return torch.zeros(unit.size - 1)

    with pytest.raises(ValueError, match=r"expected scores of shape \(10,\)"):
        Short().score(make_unit(), seed=0)


def test_unscorable_keeps_its_reason_apart_from_the_message():
    finding = Unscorable("bn-scale", "layer1", "no batch norm follows layer1.conv")
    assert isinstance(finding, BequestError)
    assert finding.reason == "no batch norm follows layer1.conv"
    assert "bn-scale" in str(finding)
    assert "layer1" in str(finding)

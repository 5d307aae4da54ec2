from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bequest.criteria import Redundancy
from bequest.criteria.base import Unscorable
from bequest.criteria.srinivas2015redundancy import greedy_merges
from tests.restorers.units import make_unit


def merges_by_hand(unit, removable):
    """The paper's procedure with nothing remembered between steps."""
    weight, bias = unit.producer.folded()
    w = torch.cat([weight, bias[:, None]], dim=1)
    a = [torch.cat([c.weight[:, j].flatten() for c in unit.consumers]) for j in range(unit.size)]
    alive, order = list(range(unit.size)), []
    while len(alive) > 1 and any(j in removable for j in alive):
        saliency = {
            (j, i): (a[j].square().sum() * (w[i] - w[j]).square().sum()).item()
            for j in alive
            for i in alive
            if i != j and j in removable
        }
        j, i = min(saliency, key=lambda pair: saliency[pair])
        a[i] = a[i] + a[j]
        alive.remove(j)
        order.append((i, j))
    return order


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 12),
    norm=st.booleans(),
    consumers=st.sampled_from([((7, 1),), ((3, 4),), ((3, 1), (2, 9))]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_the_merges_are_those_of_a_plain_search(n, norm, consumers, seed, data):
    unit = make_unit(n=n, norm=norm, bias=not norm, consumers=consumers, seed=seed)
    removable = sorted(data.draw(st.sets(st.integers(0, n - 1))))
    assert greedy_merges("test", unit, removable) == merges_by_hand(unit, removable)


def test_the_score_is_the_rank_of_removal():
    unit = make_unit(n=9)
    order = [j for _, j in merges_by_hand(unit, range(9))]
    scores = Redundancy().score(unit, seed=0)
    assert scores.argsort()[:-1].tolist() == order
    assert sorted(scores.tolist()) == list(range(9))


def test_duplicates_leave_first():
    unit = make_unit(n=8, norm=False)
    unit.producer.weight[6] = unit.producer.weight[2]
    unit.producer.weight[5] = unit.producer.weight[2]
    assert set(Redundancy().score(unit, seed=0).argsort()[:2].tolist()) < {2, 5, 6}


def test_one_channel_that_is_everybodys_neighbour_may_go():
    unit = make_unit(n=6, d=6, norm=False)
    unit.producer.weight.copy_(torch.eye(6, dtype=torch.float64))
    unit.producer.weight[0] = 0.5  # nearer to each of the others than they are to one another
    unit.consumers[0].weight[:, 0] = 1e-6
    assert greedy_merges("test", unit, range(6)) == merges_by_hand(unit, range(6))
    assert Redundancy().score(unit, seed=0)[0] == 0


def test_a_group_that_is_not_a_simple_chain_is_refused_with_its_obstacle():
    unit = replace(make_unit(), obstacle="two producers are added")
    with pytest.raises(Unscorable, match="two producers are added"):
        Redundancy().score(unit, seed=0)

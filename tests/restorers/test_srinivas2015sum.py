import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bequest.criteria import Redundancy
from bequest.restorers import Sum
from tests.restorers.units import assert_exact, halves, make_unit


def pruned_by_hand(unit, p):
    """The paper's procedure down to p channels: who is left, and the consumers' new columns."""
    weight, bias = unit.producer.folded()
    w = torch.cat([weight, bias[:, None]], dim=1)
    columns = [list(c.weight.unbind(dim=1)) for c in unit.consumers]
    alive = list(range(unit.size))
    while len(alive) > p:
        norm = {j: sum(c[j].square().sum() for c in columns) for j in alive}
        pairs = {
            (i, j): (norm[j] * (w[i] - w[j]).square().sum()).item()
            for j in alive for i in alive if i != j
        }  # fmt: skip
        i, j = min(pairs, key=lambda pair: pairs[pair])
        for c in columns:
            c[i] = c[i] + c[j]
        alive.remove(j)
    return alive, [torch.stack([c[k] for k in alive], dim=1) for c in columns]


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 12),
    norm=st.booleans(),
    consumers=st.sampled_from([((7, 1),), ((3, 1), (2, 9))]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_redundancy_and_sum_are_the_papers_procedure(n, norm, consumers, seed, data):
    p = data.draw(st.integers(1, n - 1))
    unit = make_unit(n=n, norm=norm, bias=not norm, consumers=consumers, seed=seed)
    order = Redundancy().score(unit, seed=0).argsort(descending=True)
    kept, removed = order[:p].sort().values, order[p:].sort().values
    alive, columns = pruned_by_hand(unit, p)
    assert kept.tolist() == alive
    matrix = Sum().deliver(unit, kept, removed, seed=0).matrix
    for consumer, expected in zip(unit.consumers, columns, strict=True):
        new = consumer.weight[:, kept] + torch.einsum(
            "ojq,jk->okq", consumer.weight[:, removed], matrix
        )
        torch.testing.assert_close(new, expected)


@pytest.mark.parametrize("p", [1, 6, 11])
def test_every_removed_channel_ends_at_one_kept_channel(p):
    unit, (kept, removed) = make_unit(n=12), halves(12, p)
    matrix = Sum().deliver(unit, kept, removed, seed=0).matrix
    assert torch.equal(matrix.sum(dim=1), torch.ones(12 - p, dtype=torch.float64))
    assert matrix.count_nonzero() == 12 - p


def test_duplicates_are_exact_also_through_a_removed_one():
    unit = make_unit(n=6, norm=False)
    unit.producer.weight[4] = unit.producer.weight[1]
    unit.producer.weight[5] = unit.producer.weight[1]
    given = Sum().deliver(unit, torch.arange(4), torch.tensor([4, 5]), seed=0)
    assert given.matrix.argmax(dim=1).tolist() == [1, 1]
    assert_exact(unit, torch.arange(4), torch.tensor([4, 5]), given)

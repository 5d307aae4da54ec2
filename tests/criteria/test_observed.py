"""Criteria on what layers see: each step is the cheapest, and its cost that of a naive solve."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import bequest
from bequest.criteria import OBS, MutualInformation, downdates, elimination
from bequest.criteria.base import Unscorable
from bequest.graph.units import Reader, Unit

RIDGE = 1e-2


def make_reader(channels=5, each=2, others=3, outputs=4, seed=0):
    """A layer that reads ``channels`` of a unit, in any order, and inputs of another."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.tensor([*range(channels)] * each + [-1] * others)
    owner = owner[torch.randperm(len(owner), generator=generator)]
    rows = torch.randn(len(owner), 40, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, len(owner), generator=generator, dtype=torch.float64)
    return Reader("reader", weight, rows @ rows.T / 40, owner)


def make_unit(*readers):
    size = 1 + max(int(reader.owner.max()) for reader in readers)
    return Unit("unit", size, (), None, (), "none", readers)


def ridged(reader):
    variances = reader.covariance.diagonal()
    return reader.covariance + (RIDGE * variances + 1e-8 * variances.mean()).diag()


def naive_error(reader, gone):
    """Least tr((W − V)·C·(W − V)ᵀ) over V without the inputs of the channels that are gone."""
    c = ridged(reader)
    keep = [i for i, owner in enumerate(reader.owner.tolist()) if owner not in gone]
    v = torch.zeros_like(reader.weight)
    v[:, keep] = torch.linalg.solve(c[keep][:, keep], c[keep] @ reader.weight.T).T
    difference = reader.weight - v
    total = (reader.weight @ reader.covariance @ reader.weight.T).trace()
    return (difference @ c @ difference.T).trace() / total


def naive_information(reader, gone):
    """½·log det of the covariance of what stays, less that of the same given the outputs."""
    c, w = ridged(reader), reader.weight
    noise = RIDGE * (w @ reader.covariance @ w.T).trace() / len(w)
    outputs = w @ c @ w.T + noise * torch.eye(len(w), dtype=torch.float64)
    given = c - c @ w.T @ torch.linalg.solve(outputs, w @ c)
    keep = [i for i, owner in enumerate(reader.owner.tolist()) if owner not in gone]
    return (torch.logdet(c[keep][:, keep]) - torch.logdet(given[keep][:, keep])) / 2


def leaving_order(scores):
    return torch.argsort(scores, stable=True).tolist()


def test_obs_costs_what_a_regression_on_the_rest_leaves():
    readers = make_reader(), make_reader(seed=1, each=1, outputs=6)
    scores = OBS(RIDGE).score(make_unit(*readers), seed=0)
    order = leaving_order(scores)
    for count in range(1, len(order) + 1):
        gone = set(order[:count])
        expected = sum(naive_error(reader, gone) for reader in readers)
        torch.testing.assert_close(scores[order[count - 1]], expected, rtol=1e-9, atol=1e-12)


def test_mutual_information_loses_what_the_determinants_say():
    readers = make_reader(), make_reader(seed=1, each=1, outputs=6)
    scores = MutualInformation(RIDGE).score(make_unit(*readers), seed=0)
    order = leaving_order(scores)
    for count in range(1, len(order) + 1):
        expected = sum(
            naive_information(reader, set()) - naive_information(reader, set(order[:count]))
            for reader in readers
        )
        torch.testing.assert_close(scores[order[count - 1]], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("criterion", "worth"),
    [(OBS(RIDGE), naive_error), (MutualInformation(RIDGE), naive_information)],
)
def test_the_first_to_leave_is_the_cheapest_of_all(criterion, worth):
    reader = make_reader(channels=6)
    first = leaving_order(criterion.score(make_unit(reader), seed=0))[0]
    sign = 1 if worth is naive_error else -1
    costs = [float(sign * worth(reader, {channel})) for channel in range(6)]
    assert first == costs.index(min(costs))


def test_predicted_losses_follow_any_order():
    reader = make_reader()
    order = [3, 0, 4, 1, 2]
    losses = OBS(RIDGE).losses(make_unit(reader), order)
    for count in range(1, 6):
        expected = naive_error(reader, set(order[:count]))
        torch.testing.assert_close(losses[order[count - 1]], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("criterion", [OBS(RIDGE), MutualInformation(RIDGE)])
def test_a_reader_of_two_channels_alone_may_lose_both(criterion):
    whole, few = make_reader(channels=12), make_reader(channels=2, each=1, others=0, seed=3)
    scores = criterion.score(make_unit(whole, few), seed=0)
    order = leaving_order(scores)
    for count in range(1, 12):
        gone = set(order[:count])
        if isinstance(criterion, OBS):
            expected = naive_error(whole, gone) + naive_error(few, gone)
        else:
            kept = few if not gone >= {0, 1} else None
            left = 0 if kept is None else naive_information(few, gone)
            expected = naive_information(whole, set()) - naive_information(whole, gone)
            expected = expected + naive_information(few, set()) - left
        torch.testing.assert_close(scores[order[count - 1]], expected, rtol=1e-8, atol=1e-11)


def test_a_channel_that_others_repeat_leaves_for_nothing():
    base = make_reader(channels=4, each=1, others=0)
    mix = torch.eye(5, 4, dtype=torch.float64)
    mix[4] = torch.tensor([1.0, -2.0, 0.0, 0.5])
    weight = torch.randn(3, 5, dtype=torch.float64)
    covariance = mix @ base.covariance @ mix.T
    unit = make_unit(Reader("reader", weight, covariance, torch.arange(5)))
    assert OBS(1e-9).score(unit, seed=0).min() < 1e-6


def test_a_unit_that_no_plain_layer_reads_is_unscorable():
    with pytest.raises(Unscorable, match="no plain convolution or linear layer reads it"):
        OBS().score(Unit("unit", 3, (), None, (), "none"), seed=0)


class Twins(nn.Module):
    """A first layer whose later half repeats its first, scaled."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.first.weight[4:] = 3 * self.first.weight[:4]
            self.first.bias[4:] = 3 * self.first.bias[:4]

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("criterion", ["obs", "mutual-information"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_of_each_pair_of_twins_leaves(criterion, dtype):
    torch.manual_seed(0)
    model = Twins().to(dtype)
    pruned = bequest.prune(
        model, torch.zeros(1, 6, dtype=dtype), 0.5, criterion=criterion, round_to=1
    )
    (group,) = pruned.plan.groups
    assert sorted(channel % 4 for channel in group.removed) == [0, 1, 2, 3]


def test_the_order_of_leaving_is_greedy():
    reader = make_reader(channels=5, each=1, others=0)
    order = leaving_order(OBS(RIDGE).score(make_unit(reader), seed=0))
    for count, chosen in enumerate(order[:-1]):
        gone = set(order[:count])
        errors = {c: float(naive_error(reader, gone | {c})) for c in range(5) if c not in gone}
        assert errors[chosen] == min(errors.values())
    assert len(set(itertools.chain(order))) == 5


@pytest.mark.parametrize("criterion", [OBS(), MutualInformation()], ids=lambda one: one.name)
def test_dropping_what_has_left_changes_no_score(criterion, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    owner = torch.tensor([0, -1, 3, 1, 1, 2, -1, 0, 3, 3, 4, 5, 6, 6])
    rows = torch.randn(len(owner), 60, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, len(owner), generator=generator, dtype=torch.float64)
    unit = make_unit(Reader("reader", weight, rows @ rows.T / 60, owner))
    dropping = criterion.score(unit, 0)
    monkeypatch.setattr(elimination, "DROPPED", 1.0)
    torch.testing.assert_close(dropping, criterion.score(unit, 0), rtol=1e-12, atol=0)


class Levels(nn.Module):
    """Channels of which some, or all, are the same whatever the network reads, and not zero."""

    def __init__(self, constant):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)
        with torch.no_grad():
            self.first.weight[constant] = 0
            self.first.bias[constant] = torch.rand(16)[constant] * 100 + 1

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("criterion", ["obs", "mutual-information"])
def test_channels_that_never_vary_leave_first_and_are_made_up_for_exactly(criterion):
    constant = [1, 2, 5, 8, 9, 12]
    model, x = Levels(constant).eval(), torch.randn(80, 3, 8, 8)
    pruned = bequest.prune(
        model, x[:1], {"first": 6 / 16}, criterion=criterion, data=[x], round_to=1, progress=False
    )
    (group,) = pruned.plan.groups
    assert list(group.removed) == constant
    assert group.predicted_error < 1e-3
    torch.testing.assert_close(pruned.model(x), model(x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("criterion", ["obs", "mutual-information"])
def test_a_unit_that_never_varies_loses_nothing(criterion):
    model, x = Levels(list(range(16))).eval(), torch.randn(80, 3, 8, 8)
    pruned = bequest.prune(
        model, x[:1], {"first": 0.5}, criterion=criterion, data=[x], round_to=1, progress=False
    )
    assert pruned.plan.groups[0].predicted_error == 0
    torch.testing.assert_close(pruned.model(x), model(x), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "criterion", [OBS(1e-9), MutualInformation(1e-9)], ids=lambda one: one.name
)
def test_a_covariance_that_rounding_left_indefinite_is_ranked(criterion):
    reader = make_reader(channels=4, each=1, others=0)
    values, vectors = torch.linalg.eigh(reader.covariance)
    values[0] = -1e-6 * values[-1]
    unit = make_unit(Reader("reader", reader.weight, vectors * values @ vectors.T, reader.owner))
    assert criterion.score(unit, seed=0).isfinite().all()


def removed_one_by_one(reader, size):
    """The order in which the cheapest leaves, each removal written out on the dense matrices."""
    inverse, weight = torch.linalg.inv(ridged(reader)), reader.weight.clone()
    mine = [(reader.owner == channel).nonzero()[:, 0] for channel in range(size)]
    left, order = set(range(size)), []
    while left:
        costs = {
            j: torch.trace(
                weight[:, mine[j]]
                @ torch.linalg.solve(inverse[mine[j]][:, mine[j]], weight[:, mine[j]].T)
            ).item()
            for j in left
        }
        gone = mine[min(costs, key=costs.get)]
        carried = torch.linalg.solve(inverse[gone][:, gone], inverse[gone])
        weight -= weight[:, gone] @ carried
        inverse -= inverse[:, gone] @ carried
        order.append(min(costs, key=costs.get))
        left.remove(order[-1])
    return order


@pytest.mark.parametrize(("each", "outputs"), [(1, 200), (1, 10), (4, 30)])
@pytest.mark.parametrize("block", [3, 16, downdates.BLOCK])
def test_downdates_in_blocks_choose_as_those_one_by_one(each, outputs, block, monkeypatch):
    monkeypatch.setattr(downdates, "BLOCK", block)
    reader = make_reader(channels=60, each=each, outputs=outputs)
    found = leaving_order(OBS(RIDGE).score(make_unit(reader), seed=0))
    assert found == removed_one_by_one(reader, 60)


def test_channels_of_more_inputs_than_a_block_leave(monkeypatch):
    monkeypatch.setattr(downdates, "BLOCK", 2)
    reader = make_reader(channels=5, each=7)
    found = leaving_order(OBS(RIDGE).score(make_unit(reader), seed=0))
    assert found == removed_one_by_one(reader, 5)

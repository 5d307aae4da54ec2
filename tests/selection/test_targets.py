"""Targets: a budget is met, at the least predicted error, or the call says why not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import bequest
from bequest.errors import UsageError
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace
from bequest.restorers import Regression
from bequest.selection.allocation import Allocation, largest, within_budget
from bequest.selection.targets import Macs
from bequest.selection.targets.agreement import agreement
from bequest.selection.targets.base import Met, Target, parse
from bequest.selection.widths import Choice
from tests.networks import NETWORKS, DepthwiseTail, Plain, randomise

QUICK = Regression(images=64, inversion=0)


def wide_resnet():
    """A network with more than a handful of groups."""
    torch.manual_seed(0)
    return randomise(bequest.zoo.create("resnet20"))


@pytest.mark.parametrize(
    ("kind", "share", "round_to"), [("params", 0.5, 1), ("macs", 0.5, 4), ("macs", 0.25, 1)]
)
def test_the_budget_is_met_within_two_percent(kind, share, round_to):
    pruned = bequest.prune(
        wide_resnet(),
        torch.zeros(1, 3, 32, 32),
        target=f"{kind}:{share}",
        restorer="lbyl",
        round_to=round_to,
        data=[torch.randn(32, 3, 32, 32)],
    )
    before, after = pruned.report.before, pruned.report.after
    found = getattr(after, kind) / getattr(before, kind)
    assert abs(found - share) <= 0.02  # biases that restorers add come on top
    assert pruned.plan.recipe["target"] == f"{kind}:{share:g}"
    assert pruned.plan.recipe["ratio"] is None


def test_what_carries_least_leaves_first():
    model = wide_resnet()
    with torch.no_grad():  # half of the channels of one block write nothing
        model.layer1[1].bn1.weight[::2] = 0
        model.layer1[1].bn1.bias[::2] = 0
    pruned = bequest.prune(
        model,
        torch.zeros(1, 3, 32, 32),
        target="params:0.97",
        criterion="obs",
        restorer=QUICK,
        round_to=1,
    )
    removed = {one.name: one.removed for one in pruned.plan.groups}
    assert set(range(0, 16, 2)) <= set(removed["layer1.1.conv1"])


def make_allocation(seed):
    """Three small groups of the odd network with made-up losses, convex ones."""
    channels = group(read(trace(randomise(Plain()), torch.zeros(1, 3, 8, 8))))
    rng = np.random.default_rng(seed)
    choices = []
    for member in channels.groups:
        if member.free:
            losses = np.cumsum(np.sort(rng.random(member.size)))
            choices.append(Choice(member, 0.5, np.arange(member.size, dtype=float), losses))
    return Allocation(choices, channels, randomise(Plain()), lambda part: part.params)


@pytest.mark.parametrize("seed", range(5))
def test_the_allocation_is_the_best_of_all_that_cost_as_much(seed):
    allocation = make_allocation(seed)
    losses, saved = allocation._losses, allocation._saved
    low, high = allocation.prices()
    counts = allocation.at((low * high) ** 0.5)
    saving = float(counts @ saved)
    error = sum(loss[k] for loss, k in zip(losses, counts, strict=True))
    for other in itertools.product(*(range(0, len(loss), 2) for loss in losses)):
        if float(np.array(other) @ saved) >= saving:
            assert sum(loss[k] for loss, k in zip(losses, other, strict=True)) >= error - 1e-12


def test_more_leaves_at_a_higher_price():
    allocation = make_allocation(0)
    low, high = allocation.prices()
    assert not allocation.at(low).any()
    assert (allocation.at(high) == allocation.most).all()
    steps = [allocation.at(price) for price in np.geomspace(low, high, 20)]
    assert all((a <= b).all() for a, b in itertools.pairwise(steps))


def test_the_largest_that_passes_is_found():
    allocation = make_allocation(1)

    def lost(choices):
        return sum(round(choice.ratio * choice.group.free) for choice in choices)

    most = int(allocation.most.sum())
    found = lost(largest(allocation, lambda choices: lost(choices) <= most // 2, steps=20))
    assert 0 < found <= most // 2


def test_a_budget_out_of_reach_is_said():
    with pytest.raises(UsageError, match=r"expected a share of at least 0\.3"):
        within_budget(make_allocation(0), lambda choices: 0.3, 0.2)


def test_agreement_is_met_with_something_pruned():
    model = wide_resnet()
    x = [torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))]
    pruned = bequest.prune(
        model, x[0][:1], target="agreement:0.7", restorer=QUICK, data=x, round_to=1
    )
    samples = QUICK.samples(model, x[0][:1], x, 0)
    assert agreement(model, pruned.model, samples, x) >= 0.7
    assert pruned.report.after.params < pruned.report.before.params


@pytest.mark.parametrize(
    "target", ["macs", "macs:0", "macs:1.5", "flops:0.5", "macs:half", 0.5, "params:nan"]
)
def test_wrong_targets(target):
    with pytest.raises(UsageError, match="target: expected KIND:SHARE"):
        parse(target)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda choices: choices, TypeError, "expected a Met, found tuple"),
        (lambda choices: Met(()), ValueError, "each of the choices"),
        (lambda choices: Met((*choices, choices[0])), ValueError, "once"),
        (lambda choices: Met([replace(c, ratio=float("nan")) for c in choices]), ValueError, "nan"),
        (lambda choices: Met([replace(c, ratio=1.0) for c in choices]), ValueError, "found 1.0"),
    ],
)
def test_what_a_target_of_ones_own_answers_is_checked(answer, error, message):
    class Own(Target):
        observes = False

        def meet(self, search):
            return answer(search.choices)

    with pytest.raises(error, match=message):
        bequest.prune(randomise(Plain()), torch.zeros(1, 3, 8, 8), target=Own(0.5), restorer="none")


@pytest.mark.parametrize("groups", [1, 2])
def test_a_group_that_no_plain_layer_reads_is_refused_where_inputs_are_looked_at(groups):
    reader = (
        nn.ConvTranspose2d(16, 8, 2, stride=2) if groups == 1 else nn.Conv2d(16, 8, 3, groups=2)
    )
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), reader, nn.ReLU(), nn.Conv2d(8, 4, 1)
    ).eval()
    for options in ({"ratio": 0.5, "criterion": "obs"}, {"target": "params:0.8"}):
        found = bequest.prune(
            model,
            torch.zeros(1, 3, 8, 8),
            restorer="none",
            data=[torch.randn(8, 3, 8, 8)],
            round_to=1,
            **options,
        )
        assert {one.group for one in found.report.refused} >= {"0"}


def test_a_ratio_and_a_target_are_too_much():
    with pytest.raises(UsageError, match="found both"):
        bequest.prune(randomise(Plain()), torch.zeros(1, 3, 8, 8), 0.5, target="macs:0.5")


def test_a_scope_and_a_target_are_too_much():
    with pytest.raises(UsageError, match="leave scope out"):
        bequest.prune(
            randomise(Plain()), torch.zeros(1, 3, 8, 8), target="macs:0.5", scope="global"
        )


def test_depthwise_networks_have_targets_too():
    model, shape = randomise(DepthwiseTail()), NETWORKS[DepthwiseTail]
    pruned = bequest.prune(
        model, torch.zeros(shape), target="params:0.6", restorer=QUICK, round_to=1
    )
    assert abs(pruned.report.after.params / pruned.report.before.params - 0.6) <= 0.02


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1, float("nan"), "half", None])
def test_a_target_given_as_an_object_has_a_share_too(value):
    with pytest.raises(UsageError, match=r"target: expected KIND:SHARE .* found 'macs:"):
        Macs(value)
    assert parse(Macs(0.5)) == parse("macs:0.5")


@pytest.mark.parametrize("network", NETWORKS)
def test_no_group_is_lost_where_inputs_are_looked_at(network):
    """Whoever reads its channels, or nobody: a group is pruned or refused, as by its weights."""
    shape = NETWORKS[network]
    model, x = randomise(network()), torch.randn(8, *shape[1:])

    def named(criterion):
        options = {"restorer": "none", "groups": "all", "round_to": 1, "progress": False}
        data = None if criterion == "l2" else [x]
        found = bequest.prune(model, x[:2], 0.5, criterion=criterion, data=data, **options)
        return {g.name for g in found.report.groups} | {r.group for r in found.report.refused}

    assert named("obs") >= named("l2")

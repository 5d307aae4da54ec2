"""A sweep traces a network once, and every cell is still what prune() gives."""

from __future__ import annotations

import pickle
from functools import cache, partial

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import bequest
from bequest import analysis
from bequest.call import Call
from bequest.restorers import Regression
from bequest.sweeping import Network
from bequest.sweeping.analyses import MOST, Analyses
from tests.sweeping.networks import numbers, small

QUICK = Regression(images=64, inversion=0, refine=8)
WEIGHTS_ALONE = ("none", "merge", "lbyl", "folding", "fusion", "ifm")
GRID = {"ratios": (0.25, 0.5), "criteria": ("l1",), "round_to": 1, "progress": False, "workers": 1}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 16, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.narrow(self.depthwise(self.norm(self.wide(x)).relu()).relu())
        return self.head(x.mean((2, 3)))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 12)
        self.layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.layer(self.embed(x)).mean(1))


class Counting(nn.Module):
    """Its third pass and later ones compute something else."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 4)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return self.second(self.first(x).relu()) * (self.passes < 3)


class Drawing(nn.Module):
    """Its code draws from the global generators."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x):
        y = self.first(x).relu()
        return self.second(y + 0.1 * torch.randn_like(y))


class Computed(nn.Module):
    """Its weights are computed from others at every pass."""

    def __init__(self):
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(6, 16))
        self.second = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 4))

    def forward(self, x):
        return self.second(self.first(x).relu())


@pytest.fixture
def traced(monkeypatch):
    """What is traced, a shape per time."""
    seen = []

    def trace(model, inputs):
        seen.append([tuple(one.shape) for one in tree_leaves(inputs)])
        return real(model, inputs)

    real = analysis.trace
    monkeypatch.setattr(analysis, "trace", trace)
    return seen


def call(restorer, ratio, *, groups="all", seed=0, data=None):
    return Call.checked(
        ratio=ratio,
        target=None,
        groups=groups,
        criterion="l2",
        scope="group",
        restorer=restorer,
        data=data,
        round_to=1,
        seed=seed,
        progress=False,
    )


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (Residual, (1, 3, 8, 8)),
        (Attending, (1, 5, 6)),
        (Counting, (1, 6)),
        (Drawing, (1, 6)),
        (Computed, (1, 6)),
    ],
)
def test_prunings_of_one_analysis_are_those_of_analyses_of_their_own(make, shape, traced):
    torch.manual_seed(1)
    model, example, analyses = make().eval(), torch.zeros(shape), Analyses()
    samples = QUICK.samples(model, example, None, 0)

    @cache
    def alone(restorer, data, ratio):
        seen = len(traced)
        asked = {"groups": "all", "criterion": "l2", "round_to": 1, "progress": False}
        found = bequest.prune(model, example, ratio, restorer=restorer, data=data, **asked)
        del traced[seen:]
        return found

    del traced[:]
    for restorer in (*WEIGHTS_ALONE, QUICK, "none", QUICK):
        data = samples if restorer is QUICK else None
        for ratio in (0.5, 0.25):
            together, _ = analyses.prune(model, example, call(restorer, ratio, data=data))
            expected = alone(restorer, data, ratio)
            assert together.report == expected.report
            assert together.plan == expected.plan
            others = expected.model.state_dict()
            assert others.keys() == together.model.state_dict().keys()
            for name, tensor in together.model.state_dict().items():
                assert torch.equal(tensor, others[name]), (restorer, ratio, name)
    assert len(traced) == 2  # over the example, and over a chunk of the samples


def test_it_holds_the_last_ones(traced):
    one = small()
    analyses, make = Analyses(), partial(QUICK.samples, one.model, one.example_inputs, None)
    sets = [make(seed) for seed in range(3)]
    del traced[:]
    for data in (*sets, sets[2], sets[1], sets[0]):
        analyses.prune(one.model, one.example_inputs, call(QUICK, 0.5, groups="inner", data=data))
        assert len(analyses.held) <= MOST
    assert len(traced) == 4


def test_a_sweep_traces_a_network_once_for_weights_and_once_for_inputs(traced):
    bequest.sweep(small(), restorers=("none", "lbyl", QUICK), **GRID)
    assert len(traced) == 2


def test_a_network_that_was_changed_between_sweeps_is_read_anew():
    one = small()
    grid = {**GRID, "restorers": ("lbyl",)}
    before = bequest.sweep(one, **grid)
    with torch.no_grad():
        one.model.norm.running_mean += 2 * torch.randn(12)  # a buffer, which copies own
    again = bequest.sweep(one, **grid)
    fresh = small()
    fresh.model.load_state_dict(one.model.state_dict())
    assert numbers(again) == numbers(bequest.sweep(fresh, **grid))
    assert numbers(again) != numbers(before)


def test_the_seconds_of_a_cell_are_those_of_a_pruning_alone():
    one, analyses = small(), Analyses()
    first, second = (
        analyses.prune(one.model, one.example_inputs, call("none", ratio, groups="inner"))[1]
        for ratio in (0.5, 0.25)
    )
    assert min(first, second) > analyses.held[0].seconds > 0


def test_analyses_are_not_carried_to_other_processes():
    one = small()
    one.analyses.prune(one.model, one.example_inputs, call("none", 0.5, groups="inner"))
    assert one.analyses.held
    assert not pickle.loads(pickle.dumps(one)).analyses.held


def test_a_sweep_takes_networks_whose_weights_are_computed():
    torch.manual_seed(0)
    x = torch.randn(20, 6)
    one = Network("computed", Computed().eval(), x[:1], [(x, torch.arange(20) % 4)])
    found = bequest.sweep(one, restorers=("lbyl", QUICK), **GRID)
    assert not found.failures
    assert len(found.comparisons[0].cells) == 4


def test_equal_seeds_give_equal_bits_whatever_the_network_draws():
    torch.manual_seed(0)
    model, x = Drawing().eval(), torch.zeros(1, 6)
    weights = []
    for seed in (3, 3, 4):
        state = torch.get_rng_state()
        pruned = bequest.prune(model, x, 0.5, restorer=QUICK, seed=seed, progress=False)
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(pruned.model.second.weight)
        torch.randn(3)  # the caller's own draws
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])

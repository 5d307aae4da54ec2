"""Random networks over the whole vocabulary of rules, and what must hold for every one of them.

CI takes a few. ``make test-random`` takes 500, and ``make test-random SEEDS=17`` one of them again.
"""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import Tensor, nn

import bequest
from tests.random_networks.drawing import Network, drawn, wish
from tests.random_networks.oracle import masked

VARIABLE = "BEQUEST_RANDOM_NETWORKS"
"""The environment variable with the seeds: ``17``, or ``0:500``."""

pytestmark = pytest.mark.filterwarnings("ignore:nothing was pruned")

RESTORERS = ("merge", "lbyl", "moments", "sum", "none")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first, _, end = os.environ.get(VARIABLE, "0:60").partition(":")
    seeds = range(int(first), int(end or int(first) + 1))
    every = 1 if VARIABLE in os.environ else metafunc.function.in_ci
    metafunc.parametrize("seed", seeds[::every], ids=lambda seed: f"seed{seed}")


def in_ci(every: int):
    """CI has time for every so-many-th network."""

    def mark(function):
        function.in_ci = every
        return function

    return mark


def require_close(found: Tensor, wanted: Tensor, what: str) -> None:
    """Raises AssertionError where outputs differ by more than rounding."""
    error = float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
    assert error < 1e-8, f"{what}: off by {error:.2g} of the largest output"


def pruned(network: Network, seed: int) -> bequest.pruning.Pruned:
    """The network of a seed, pruned as that seed says; prints both, to be shown on a failure."""
    options = {**vars(wish(seed)), "seed": seed, "criterion": "random", "restorer": "none"}
    print(f"seed {seed}: {network.described()}\n{wish(seed)}")
    result = bequest.prune(network, network.inputs(2), **options, progress=False)
    print(result.plan.form, *result.plan.groups, *result.report.refused, sep="\n")
    return result


@in_ci(every=1)
@torch.no_grad()
def test_what_is_left_computes_what_the_dense_network_does_without_the_rest(seed, tmp_path):
    network = drawn(seed)
    before = copy.deepcopy(network.state_dict())
    result = pruned(network, seed)
    assert all(torch.equal(before[name], held) for name, held in network.state_dict().items())
    assert all(0 < one.kept < one.size for one in result.plan.groups)
    assert all(note.startswith("nothing was pruned") for note in result.report.notes)

    oracle = masked(network, result.plan.surgery)
    program = result.program
    for batch in (2, 3) if program is None or program.any_batch else (2,):
        x = network.inputs(batch, seed=batch)
        found = result.model(*x)
        if network.exact:
            require_close(found, oracle(*x), f"{batch} samples")
    require_same_bits(result, drawn(seed), x, tmp_path)
    with torch.enable_grad():
        result.model.train()(*network.inputs(4)).square().sum().backward()


def require_same_bits(result, fresh: nn.Module, x, folder) -> None:
    """Raises AssertionError where the network isn't the same after it was saved and loaded."""
    result.save(folder / "out")
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    assert torch.equal(bequest.load(folder / "out", fresh)(*x), result.model(*x))


@in_ci(every=10)
@torch.no_grad()
def test_dead_channels_leave_exactly(seed):
    """Channels that write zeros and that nobody hears, found by their weights, with a restorer."""
    network = drawn(seed)
    result = pruned(network, seed)
    dead = masked(network, result.plan.surgery)
    ratio = {one.producers[0]: len(one.removed) / one.size for one in result.plan.groups}
    options = {"groups": "all", "round_to": 1, "criterion": "l1", "progress": False}
    restorer = RESTORERS[(seed + seed // 10) % 5]
    again = bequest.prune(dead, network.inputs(2), ratio or 0.0, restorer=restorer, **options)
    x = network.inputs(2, seed=1)
    if network.exact:
        require_close(again.model(*x), dead(*x), f"dead channels, {restorer}")


@in_ci(every=30)
@torch.no_grad()
def test_steps_are_loaded_as_one(seed, tmp_path):
    network = drawn(seed)
    model = pruned(network, seed).model
    x = network.inputs(2)
    last = bequest.prune(model, x, 0.3, criterion="l1", restorer="lbyl", round_to=1, progress=False)
    require_same_bits(last, drawn(seed), x, tmp_path)


@in_ci(every=30)
@torch.no_grad()
def test_nothing_leaves_at_ratio_0(seed):
    network = drawn(seed)
    result = bequest.prune(network, network.inputs(2), 0.0, groups="all", progress=False)
    assert not result.plan.groups
    x = network.inputs(2, seed=1)
    assert torch.equal(result.model(*x), network(*x))

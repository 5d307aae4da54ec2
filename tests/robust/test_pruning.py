from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import bequest
from bequest import robust
from bequest.errors import ModelError, UsageError
from bequest.graph.trace import named_tensors
from bequest.robust import run
from tests.robust.networks import ACTIVATIONS, convolutional, mlp, normed, randomised, traced_once

RELU = ACTIVATIONS["relu"]
VECTOR, IMAGE = torch.zeros(1, 6, dtype=torch.float64), torch.zeros(1, 2, 8, 8, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _traced_once(monkeypatch):
    monkeypatch.setattr(run, "trace", traced_once())


def network(make=mlp, bias=True):
    return randomised(make(RELU, bias), torch.Generator().manual_seed(0))


def tensors(model):
    return {name: tensor.clone() for name, tensor in named_tensors(model).items()}


def test_the_layers_lose_what_was_asked_for_and_the_model_stays_as_it_was():
    model = network()
    before, mode = tensors(model), model.train().training
    state = torch.get_rng_state()

    pruned = robust.prune(model, VECTOR, ratio=0.5, step=1 / 8)

    assert [(group.name, group.kept) for group in pruned.report.groups] == [("0", 4), ("2", 3)]
    assert isinstance(pruned, bequest.Pruned)
    assert model.training == mode
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(model).items())
    assert [len(step.decisions) > 0 for step in pruned.report.steps] == [True] * 4


def test_duplicates_merge_first_and_cost_nothing():
    model = network()
    with torch.no_grad():
        for copy, original in ((5, 1), (6, 2), (7, 3)):
            model[0].weight[copy] = model[0].weight[original]
            model[0].bias[copy] = model[0].bias[original]
    x = torch.rand(20, 6, dtype=torch.float64)

    for strategy in ("baseline", "greedy"):
        pruned = robust.prune(model, VECTOR, ratio={"0": 3 / 8}, step=1 / 8, strategy=strategy)

        lower, upper = pruned.report.certified_change
        assert torch.allclose(pruned.model(x), model(x), atol=1e-12)
        assert (upper - lower).max() < 1e-9
        merged = {(d.kept, d.removed) for step in pruned.report.steps for d in step.decisions}
        assert {frozenset(pair) for pair in merged} >= {frozenset({1, 5}), frozenset({3, 7})}


@pytest.mark.parametrize("make", [mlp, convolutional, normed])
@pytest.mark.parametrize("restorer", ["sum", "lbyl"])
def test_a_saved_network_is_loaded_to_the_bit(make, restorer, tmp_path):
    model = network(make)
    example = VECTOR if make is mlp else IMAGE
    pruned = robust.prune(model, example, ratio=0.5, step=0.25, restorer=restorer)

    pruned.save(tmp_path / "out")
    loaded = bequest.load(tmp_path / "out", network(make))

    x = torch.rand(5, *example.shape[1:], dtype=torch.float64)
    assert torch.equal(loaded.eval()(x), pruned.model.eval()(x))
    recipe = bequest.load_plan(tmp_path / "out").recipe
    assert recipe["criterion"]["name"] == "stochastic"
    assert recipe["input_range"] == [0.0, 1.0]


def test_regression_after_each_step_is_certified_too():
    model = network(convolutional)
    pruned = robust.prune(model, IMAGE, ratio=0.5, step=0.5, restorer="regression")

    x = torch.rand(30, 2, 8, 8, dtype=torch.float64)
    lower, upper = pruned.report.certified_change
    change = (pruned.model(x) - model(x)).detach()

    assert {group.restored_by for group in pruned.report.groups} == {"regression"}
    assert ((lower <= change) & (change <= upper)).all()


def test_each_seed_gives_the_same_network_again_and_another_seed_another():
    removed = [
        [group.removed for group in robust.prune(network(), VECTOR, seed=seed).report.groups]
        for seed in (0, 0, 1, 2, 3)
    ]

    assert removed[0] == removed[1]
    assert any(one != removed[0] for one in removed[2:])


def test_the_callback_sees_every_step_and_can_spoil_nothing():
    seen = []

    def spoil(step, model):
        seen.append((step.number, step.removed, model[0].out_features))
        nn.init.zeros_(model[0].weight)

    pruned = robust.prune(network(), VECTOR, ratio=0.5, step=0.25, callback=spoil)

    assert [number for number, _, _ in seen] == [1, 2]
    assert [width for _, _, width in seen] == [6, 4]
    assert seen[-1][1] == pruned.report.steps[-1].removed
    assert pruned.model[0].weight.abs().sum() > 0


def test_all_pairs_of_a_layer_at_once_are_what_they_are_one_by_one():
    for make, example in ((mlp, VECTOR), (convolutional, IMAGE), (normed, IMAGE)):
        one = run.Run(network(make), example, (0, 1), pace(), wish())
        for layer in one.layers:
            size = layer.group.size
            pairs = [(a, b) for a in range(size) for b in range(size) if a != b]

            together = layer.impacts(pairs, one.first)
            alone = [layer.impacts([pair], one.first) for pair in pairs]

            assert torch.allclose(together.lower, torch.cat([part.lower for part in alone]))
            assert torch.allclose(together.upper, torch.cat([part.upper for part in alone]))


def test_the_impact_of_a_pair_holds_for_its_merging():
    for make, example in ((mlp, VECTOR), (convolutional, IMAGE), (normed, IMAGE)):
        model = network(make)
        x = torch.rand(50, *example.shape[1:], dtype=torch.float64)
        one = run.Run(model, example, (0, 1), pace(), wish())
        for number, layer in enumerate(one.layers):
            impact = layer.impacts([(1, 3)], one.first)
            other = run.Run(model, example, (0, 1), pace(), wish())
            other.layers[number].merge([(1, 3)])

            change = (other.restored().model(x) - model(x)).detach()

            assert (impact.lower <= change).all()
            assert (change <= impact.upper).all()


def pace():
    return run.Pace(1 / 8, robust.Stochastic(), 0.75)


def wish():
    from bequest.robust.pruning import checked_call

    return checked_call(0.5, "sum", 0)


class Unruly(nn.Module):
    """An operator without an interval rule behind the first layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.relu(self.second(torch.tan(self.first(x)))))


def test_where_nothing_can_be_bounded_saliency_decides_and_the_report_says_so():
    pruned = robust.prune(randomised(Unruly(), torch.Generator().manual_seed(0)), VECTOR)

    lower, upper = pruned.report.certified_change
    assert (lower == -torch.inf).all() and (upper == torch.inf).all()
    assert pruned.report.unbounded == ("tan",)
    assert pruned.report.notes[0].startswith("first: chosen by saliency alone")
    assert "tan" in pruned.report.notes[0]
    assert all(group.kept == 4 for group in pruned.report.groups)


class Branches(nn.Module):
    """A residual stream, and a layer whose filters pass a group norm: no pairs there."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.norm = nn.GroupNorm(1, 6)
        self.back = nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.back(torch.relu(self.norm(self.inner(x))))
        return self.head(x.mean((2, 3)))


def test_filters_that_cannot_merge_leave_by_their_size_and_streams_stay():
    model = randomised(Branches(), torch.Generator().manual_seed(0))

    pruned = robust.prune(model, IMAGE, ratio=0.5, step=1 / 6)

    (group,) = pruned.report.groups
    weakest = model.inner.weight.detach().abs().mean((1, 2, 3)).argsort()[:3]
    assert group.name == "inner"
    assert group.removed == tuple(sorted(weakest.tolist()))
    assert [(one.group, "residual" in one.reason) for one in pruned.report.refused] == [
        ("stem", True)
    ]
    assert pruned.report.unbounded == ("group_norm in 'norm'",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_range": (1, 0)}, "lower one first"),
        ({"input_range": None}, "lowest and the highest"),
        ({"input_range": (0, float("inf"))}, "finite"),
        ({"input_range": (torch.zeros(5), torch.ones(5))}, "broadcast"),
        ({"ratio": 1.0}, r"\[0, 1\)"),
        ({"ratio": 0.6, "strategy": "baseline"}, "recursive=True"),
        ({"step": 0}, "step"),
        ({"step": "1/64"}, "step"),
        ({"alpha": 1.5}, "alpha"),
        ({"strategy": "stochstic"}, "Did you mean 'stochastic'"),
        ({"restorer": "sums"}, "Did you mean 'sum'"),
        ({"seed": -1}, "seed"),
        ({"example_inputs": torch.zeros(1, 6, dtype=torch.int64)}, "floating-point"),
    ],
)
def test_wrong_calls_are_refused(change, message):
    call = {"example_inputs": VECTOR, **change}
    with pytest.raises(UsageError, match=message):
        robust.prune(network(), **call)


def test_a_network_with_two_outputs_is_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(6, 3), nn.Linear(6, 2)

        def forward(self, x):
            return self.one(x), self.other(x)

    with pytest.raises(ModelError, match="one tensor"):
        robust.prune(Two(), torch.zeros(1, 6))


def test_nothing_to_prune_changes_nothing():
    pruned = robust.prune(network(), VECTOR, ratio=0.0)

    lower, upper = pruned.report.certified_change
    assert pruned.report.groups == pruned.report.steps == ()
    assert (lower == 0).all() and (upper == 0).all()
    assert np.isfinite(dataclasses.asdict(pruned.report.after)["params"])


def test_a_layer_that_reads_what_is_not_bounded_is_chosen_by_saliency():
    """What follows it is bounded, what merging changes in it isn't."""
    model = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3)).double()

    pruned = robust.prune(model, VECTOR, ratio=0.5, step=0.25, strategy="greedy")

    assert any("saliency alone" in note and "layer_norm" in note for note in pruned.report.notes)
    assert all(d.score is None for step in pruned.report.steps for d in step.decisions)
    lower, upper = pruned.report.certified_change
    assert (upper - lower).isfinite().all()  # a sigmoid is between 0 and 1

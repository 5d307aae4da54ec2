"""Networks pruned in several steps: the last folder holds all of them."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import bequest
from bequest import hypersphere
from bequest.artifact import save
from bequest.artifact.fingerprint import fingerprint
from bequest.errors import ArtifactError, UsageError
from bequest.surgery.program import Program
from tests.networks import (
    NETWORKS,
    ChannelShuffle,
    FusedAttention,
    GroupedBottleneck,
    GroupedQueries,
    LiteralAttention,
    Norms,
    Residual,
    SharedWeights,
    randomise,
)

STEPS = (
    {"ratio": 0.25, "restorer": "lbyl"},
    {"ratio": 0.3, "groups": "all", "criterion": "random"},
    {"ratio": 0.5, "groups": "all", "scope": "global", "restorer": "moments"},
)


def step(model, x, **options):
    options = {"restorer": "none", "round_to": 1, "progress": False, **options}
    return bequest.prune(model, x, **options)


def net():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 24, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(24, 4, 1, bias=False),
    ).eval()


IMAGES = torch.rand(2, 3, 12, 12)


def require_same(loaded, model, x):
    """Raises AssertionError where a network doesn't give the same bits."""
    loaded, model = loaded.eval(), model.eval()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert fingerprint(loaded) == fingerprint(model)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize(
    "network",
    [
        SharedWeights,
        Residual,
        GroupedBottleneck,
        ChannelShuffle,
        Norms,
        FusedAttention,
        GroupedQueries,
    ],
)
def test_every_folder_loads_into_a_fresh_network(network, tmp_path):
    x = torch.randn(NETWORKS[network])
    model = randomise(network())
    for number, options in enumerate(STEPS):
        pruned = step(model, x, **options)
        model = pruned.model
        pruned.save(tmp_path / str(number))
        require_same(bequest.load(tmp_path / str(number), network()), model, x)
    assert pruned.plan.architecture == fingerprint(network())
    assert bequest.load_plan(tmp_path / "2") == pruned.plan


def test_a_bias_of_the_first_step_is_cut_in_the_second(tmp_path):
    first = step(net(), IMAGES, ratio={"0": 0.5}, restorer="regression")
    assert "3" in first.plan.surgery.biases
    second = step(first.model, IMAGES, ratio={"3": 0.5}, restorer="regression")
    assert second.model[3].bias.shape == (12,)
    assert not any(cut.tensor == "3.bias" for cut in second.plan.surgery.cuts)
    second.save(tmp_path / "out")
    require_same(bequest.load(tmp_path / "out", net()), second.model, IMAGES)


def test_the_plan_counts_as_in_the_dense_network():
    dense = net()
    first = step(dense, IMAGES, ratio={"0": 0.25}, criterion="random")
    second = step(first.model, IMAGES, ratio={"0": 0.5, "3": 0.5}, criterion="random", seed=3)
    stem, middle = second.plan.groups
    assert (stem.size, stem.kept, middle.size, middle.kept) == (32, 12, 24, 12)
    assert "pruned before from 32 to 24 channels: none, error 1" in stem.notes
    kept = [channel for channel in range(32) if channel not in stem.removed]
    assert torch.equal(second.model[0].weight, dense[0].weight[kept])
    assert [one.size for one in second.report.groups] == [24, 24]
    assert [len(cut.keep) for cut in second.plan.surgery.cuts if cut.tensor == "0.weight"] == [12]
    earlier = [one["ratio"] for one in second.plan.recipe["earlier"]]
    assert (earlier, second.plan.recipe["ratio"]) == ([{"0": 0.25}], {"0": 0.5, "3": 0.5})


def trained(first, folder):
    optimiser = torch.optim.SGD(first.model.parameters(), lr=0.1)
    first.model.train()(IMAGES).square().sum().backward()
    optimiser.step()
    return first.model.eval()


def unpickled(first, folder):
    held = io.BytesIO()
    torch.save(first.model, held)
    held.seek(0)
    return torch.load(held, weights_only=False)


def saved(first, folder):
    first.save(folder / "between")
    return bequest.load(folder / "between", net())


@pytest.mark.parametrize(
    "between",
    [
        trained,
        unpickled,
        saved,
        lambda first, folder: copy.deepcopy(first.model),
        lambda first, folder: copy.copy(first.model),
        lambda first, folder: first.model.double().float().requires_grad_(False),
    ],
)
def test_what_happens_between_steps(between, tmp_path):
    first = step(net(), IMAGES, ratio=0.25, restorer="lbyl")
    second = step(between(first, tmp_path), IMAGES, ratio=0.25, restorer="lbyl")
    second.save(tmp_path / "out")
    require_same(bequest.load(tmp_path / "out", net()), second.model, IMAGES)
    assert not second.report.notes


def test_a_pickled_network_needs_nothing_of_bequest():
    pruned = step(net(), IMAGES, ratio=0.25)
    assert b"bequest.artifact" not in pickle.dumps(pruned.model)


def test_the_state_of_a_network_is_its_tensors_alone():
    pruned = step(net(), IMAGES, ratio=0.25)
    assert pruned.model.state_dict().keys() == net().state_dict().keys()


def test_a_program_is_pruned_again_and_needs_no_class(tmp_path):
    x = torch.randn(2, 5, 12)
    first = step(LiteralAttention(), x, ratio={"value": 0.5})
    assert isinstance(first.model, Program)
    second = step(copy.deepcopy(first.model), x, ratio=0.25)
    assert isinstance(second.model, Program)
    assert second.plan.form == "program"
    assert second.plan.architecture == first.plan.architecture
    second.save(tmp_path / "out")
    loaded = bequest.load(tmp_path / "out")
    require_same(loaded, second.model, x)
    third = step(loaded, x, ratio=0.25)
    third.save(tmp_path / "third")
    require_same(bequest.load(tmp_path / "third"), third.model, x)
    assert len(third.plan.recipe["earlier"]) == 2


def test_a_network_becomes_a_program_in_its_second_step(tmp_path):
    x = torch.randn(2, 5, 12)
    first = step(LiteralAttention(), x, ratio={"out": 0.25})
    second = step(first.model, x, ratio={"value": 0.5})
    assert (first.plan.form, second.plan.form) == ("module", "program")
    second.save(tmp_path / "out")
    require_same(bequest.load(tmp_path / "out"), second.model, x)


def test_parts_that_were_pruned_by_themselves(tmp_path):
    """Two pruned parts and a head, pruned together."""
    feed = torch.rand(2, 4, 8, 8)

    def tail():
        return nn.Sequential(nn.Conv2d(4, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1)).eval()

    def whole(one, two):
        return nn.Sequential(one, two, nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1)).eval()

    one = step(net(), IMAGES, ratio=0.25, restorer="lbyl")
    two = step(tail(), feed, ratio=0.25, restorer="lbyl")
    pruned = step(whole(one.model, two.model), IMAGES, ratio=0.25, restorer="lbyl")
    assert pruned.plan.architecture == fingerprint(whole(net(), tail()))
    assert [recipe["part"] for recipe in pruned.plan.recipe["earlier"]] == ["0", "1"]
    pruned.save(tmp_path / "out")
    require_same(bequest.load(tmp_path / "out", whole(net(), tail())), pruned.model, IMAGES)
    again = step(pruned.model, IMAGES, ratio=0.25)
    again.save(tmp_path / "again")
    require_same(bequest.load(tmp_path / "again", whole(net(), tail())), again.model, IMAGES)


def test_one_pruned_part_in_two_places(tmp_path):
    def whole(part):
        return nn.Sequential(part, nn.Conv2d(4, 3, 1), part).eval()

    part = step(net(), IMAGES, ratio=0.25)
    pruned = step(whole(part.model), IMAGES, ratio=0.25)
    pruned.save(tmp_path / "out")
    require_same(bequest.load(tmp_path / "out", whole(net())), pruned.model, IMAGES)


def wider_head(model):
    model[5] = nn.Conv2d(model[5].in_channels, 7, 1)
    return model


def renamed(model):
    return nn.Sequential(nn.Sequential(*model[:3]), *model[3:])


@pytest.mark.parametrize("change", [wider_head, renamed])
def test_a_network_that_was_changed_in_between(change, tmp_path):
    """What is remembered no longer holds: the plan begins anew and says so."""
    first = step(net(), IMAGES, ratio=0.25)
    changed = change(first.model).eval()
    second = step(changed, IMAGES, ratio=0.25)
    assert second.plan.architecture == fingerprint(changed)
    if change is wider_head:
        assert "renamed, replaced or resized" in second.report.notes[0]
    second.save(tmp_path / "out")
    require_same(bequest.load(tmp_path / "out", changed), second.model, IMAGES)
    with pytest.raises(ArtifactError, match="does not fit fresh_model"):
        bequest.load(tmp_path / "out", net())


def test_a_program_as_a_part_has_no_class_to_begin_from(tmp_path):
    x = torch.randn(2, 5, 12)
    part = step(LiteralAttention(), x, ratio={"value": 0.5}).model
    model = nn.Sequential(part, nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    pruned = step(model, x, ratio={"1": 0.5})
    pruned.save(tmp_path / "out")
    require_same(bequest.load(tmp_path / "out", model), pruned.model, x)
    assert "'0' was pruned before and is a program" in pruned.report.notes[0]


def test_the_plan_of_another_step_is_refused(tmp_path):
    first = step(net(), IMAGES, ratio={"0": 0.25})
    second = step(first.model, IMAGES, ratio={"3": 0.25})
    with pytest.raises(UsageError, match="expected the plan that made the model"):
        save(tmp_path / "out", second.model, first.plan)
    assert not (tmp_path / "out").exists()


def test_a_network_that_was_pruned_already_is_not_what_loading_needs(tmp_path):
    first = step(net(), IMAGES, ratio=0.25)
    second = step(first.model, IMAGES, ratio=0.25)
    second.save(tmp_path / "out")
    with pytest.raises(ArtifactError, match="pruned already and the folder holds every step"):
        bequest.load(tmp_path / "out", first.model)


def test_a_folder_of_a_step_alone_says_what_to_load_first(tmp_path):
    first = step(net(), IMAGES, ratio=0.25)
    first.save(tmp_path / "first")
    del vars(first.model)["_bequest_lineage"]  # as an earlier version left it
    second = step(first.model, IMAGES, ratio=0.25)
    second.save(tmp_path / "second")
    with pytest.raises(ArtifactError, match="load the folder of that pruning into fresh_model"):
        bequest.load(tmp_path / "second", net())
    loaded = bequest.load(tmp_path / "second", bequest.load(tmp_path / "first", net()))
    require_same(loaded, second.model, IMAGES)
    third = step(loaded, IMAGES, ratio=0.25)
    third.save(tmp_path / "third")
    require_same(bequest.load(tmp_path / "third", net()), third.model, IMAGES)


def test_progressive_steps(tmp_path):
    def layers():
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12))

    x = torch.rand(4, 6)
    first = step(layers(), x, ratio=0.25, restorer="lbyl")
    second = bequest.robust.prune(first.model, x, ratio=0.25, step=0.25)
    second.save(tmp_path / "out")
    require_same(bequest.load(tmp_path / "out", layers()), second.model, x)


def test_single_weights_after_channels(tmp_path):
    first = step(net(), IMAGES, ratio=0.25, restorer="lbyl")
    sparse = hypersphere.prune(first.model, 0.5)
    hypersphere.save(tmp_path / "sparse", sparse)
    loaded = bequest.load(tmp_path / "sparse", net())
    require_same(loaded, sparse, IMAGES)
    again = hypersphere.recover(loaded)
    hypersphere.save(tmp_path / "again", again)
    require_same(bequest.load(tmp_path / "again", net()), again, IMAGES)


@pytest.mark.parametrize("recover", [False, True])
def test_channels_after_single_weights(recover, tmp_path):
    sparse = hypersphere.prune(net(), 0.5)
    sparse = hypersphere.recover(sparse) if recover else sparse
    pruned = step(sparse, IMAGES, ratio=0.25, restorer="lbyl")
    assert "what pruning of single weights had kept is given up" in pruned.report.notes[0]
    pruned.save(tmp_path / "out")
    require_same(bequest.load(tmp_path / "out", net()), pruned.model, IMAGES)

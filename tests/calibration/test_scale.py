"""Inputs of another scale than in training are noticed at the first batch norms, and only there."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import bequest
from bequest.calibration.inputs.given import collect
from bequest.calibration.inputs.scale import noted, sights
from bequest.errors import InputWarning
from bequest.restorers import Regression

X = torch.zeros(1, 3, 12, 12)
MEAN, STD = 0.45, 0.22


def pixels(count, seed=0):
    return torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def trained_on(inputs):
    """Two batch norms in a row, which have seen the inputs."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )
    for norm in (model[1], model[4]):
        norm.momentum = None  # the mean over all it has seen
    with torch.no_grad():
        model.train()(inputs)
    return model.eval()


def normalised(images):
    return (images - MEAN) / STD


WRONG = {
    "0 to 255": lambda images: 255 * images,
    "0 to 1": lambda images: images,
    "not centred": lambda images: images / STD,
    "not divided": lambda images: images - MEAN,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_data_that_is_not_normalised_is_noted_with_both_numbers(wrong):
    model = trained_on(normalised(pixels(256)))
    with pytest.warns(InputWarning, match=r"^data: batch norm '1' sees .* normalise the inputs"):
        pruned = bequest.prune(
            model, X, 0.5, data=[wrong(pixels(64, seed=1))], round_to=1, progress=False
        )
    (note,) = pruned.plan.recipe["inputs"]["notes"]
    assert note in pruned.report.notes
    (first,) = sights(collect(model, [wrong(pixels(64, seed=1))], X, 64), model, X)
    assert f"deviation {first.deviation:.3g} where it saw {first.stored:.3g}" in note
    assert f"{first.shift:.3g} of those deviations off" in note


def test_the_numbers_are_those_of_the_norm():
    model = trained_on(normalised(pixels(256)))
    images = 3 * pixels(16, seed=1)
    (sight,) = sights(collect(model, [images], X, 64), model, X)
    seen, norm = model[0](images), model[1]
    sigma = norm.running_var.sqrt()
    off = (seen.mean((0, 2, 3)) - norm.running_mean) / sigma
    assert sight.norm == "1"
    assert sight.shift == pytest.approx(float(off.square().mean().sqrt()), rel=1e-3)
    ratios = seen.var((0, 2, 3), correction=0).sqrt() / sigma
    assert sight.ratio == pytest.approx(float(ratios.median()), rel=1e-3)


def silent(model, example, data, **fields):
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        return Regression(images=64, **fields).samples(model, example, data, 0)


def test_inputs_as_in_training_are_not_noted():
    model = trained_on(normalised(pixels(256)))
    for count in (1, 2, 64):
        assert not silent(model, X, [normalised(pixels(count, seed=1))]).notes
    assert all("as '1' tells" in note for note in silent(model, X, None).notes)


def test_made_up_inputs_of_the_wrong_range_are_noted_with_the_cure():
    model = trained_on(0.02 * pixels(256) + 3)
    with pytest.warns(InputWarning, match=r"^made-up inputs: .*value_range=\(0, 1\)"):
        wrong = Regression(images=64, inversion=2, value_range=(0, 1)).samples(model, X, None, 0)
    assert len(wrong.notes) == 2
    assert not silent(model, X, None, value_range=(3.0, 3.02)).notes
    assert len(silent(model, X, None).notes) == 1  # batch norms tell


def test_where_nothing_is_stored_nothing_is_said():
    wild = [1e4 * pixels(64)]
    without = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    new = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)).eval()
    of_the_batch = nn.BatchNorm2d(8, track_running_stats=False)
    never = nn.Sequential(nn.Conv2d(3, 8, 3), of_the_batch, nn.Conv2d(8, 2, 1)).eval()
    for model in (without, new, never):
        assert not silent(model, X, wild).notes


def test_every_stem_is_looked_at():
    class Stems(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = trained_on(pixels(256)), trained_on(255 * pixels(256))
            self.unused = trained_on(pixels(256))

        def forward(self, a, b):
            return self.left(a) + self.right(b)

    data, model = [(pixels(64), pixels(64))], Stems().eval()
    samples = collect(model, data, (X, X), 64)
    found = sights(samples, model, (X, X))
    assert [(sight.norm, sight.usual) for sight in found] == [("left.1", True), ("right.1", False)]
    with pytest.warns(InputWarning, match="'right.1'"):
        noted(samples, model, (X, X))


def test_the_model_is_not_touched():
    model = trained_on(normalised(pixels(64))).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sights(collect(model, [pixels(64)], X, 64), model, X)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_real_images_are_as_the_real_network_knows_them(shared):
    model = bequest.zoo.create("resnet56").eval()
    bequest.zoo.load_weights(model, shared / "weights/resnet56_cifar10.safetensors")
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    images = next(
        iter(
            bequest.data.open_images(
                shared / "data/cifar10/test.npz", mean=mean, std=std, size=(3, 32, 32), limit=64
            )
        )
    )[0]
    example = torch.zeros(1, 3, 32, 32)
    assert not silent(model, example, [images]).notes
    raw = images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    for wrong in (raw, 255 * raw):
        with pytest.warns(InputWarning):
            Regression(images=64).samples(model, example, [wrong], 0)

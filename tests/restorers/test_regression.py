"""The walk and the regression: exact where the algebra says so, the same however it is chunked."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import bequest
from bequest.calibration.inputs import synthetic
from bequest.calibration.inputs.synthetic import DRAWINGS
from bequest.calibration.samples import Samples
from bequest.errors import BequestError, UsageError
from bequest.restorers import Regression
from tests.architectures.planting import PlantedFirst
from tests.networks import NETWORKS, Decoder, DepthwiseTail, Plain, Residual, randomise


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_every_odd_network_is_served(network):
    model = randomise(network())
    x = torch.randn(NETWORKS[network])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    call = {"ratio": 0.5, "groups": "all", "criterion": "l2", "round_to": 1}
    pruned = bequest.prune(model, x, restorer=Regression(images=64), **call)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    plain = bequest.prune(model, x, restorer="none", **call)
    assert [one.removed for one in pruned.plan.groups] == [one.removed for one in plain.plan.groups]
    values = pruned.model(x)
    outputs = values.values() if isinstance(values, dict) else [values]
    assert all(output.isfinite().all() for output in outputs)


def test_layers_before_the_first_removal_stay_as_they_are():
    model = randomise(Plain())
    pruned = bequest.prune(
        model, torch.zeros(1, 3, 8, 8), {"conv2": 0.5}, restorer="regression", round_to=1
    )
    kept = [i for i in range(24) if i not in pruned.plan.groups[0].removed]
    assert torch.equal(pruned.model.conv1.weight, model.conv1.weight)
    assert torch.equal(pruned.model.conv2.weight, model.conv2.weight[kept])
    assert torch.equal(pruned.model.norm1.running_var, model.norm1.running_var)
    assert not torch.equal(pruned.model.fc.bias, model.fc.bias)


class Doubled(nn.Module):
    """Behind the activation the first four channels are sums of the last eight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.head = nn.Conv2d(12, 5, 3, padding=1, bias=False)
        with torch.no_grad():
            self.conv.weight.abs_()  # positive filters of positive images: ReLU is the identity
            self.conv.bias.abs_()
            self.conv.weight[:4] = 0.01 * (self.conv.weight[4:8] + self.conv.weight[8:])
            self.conv.bias[:4] = 0.01 * (self.conv.bias[4:8] + self.conv.bias[8:])

    def forward(self, x):
        return self.head(F.relu(self.conv(x)))


def test_linear_combinations_behind_the_activation_are_restored_as_the_ridge_vanishes():
    model = Doubled().double().eval()
    restorer = Regression(ridge=1e-10, value_range=(0.0, 1.0), images=64)
    x = torch.rand(2, 3, 10, 10, dtype=torch.float64)
    pruned = bequest.prune(model, x, {"conv": 1 / 3}, criterion="l1", restorer=restorer, round_to=1)
    assert pruned.plan.groups[0].removed == (0, 1, 2, 3)
    torch.testing.assert_close(pruned.model(x), model(x), rtol=0, atol=1e-4)


def test_chunks_of_any_size_give_the_same_network():
    model, x = randomise(Residual()).double(), torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    images = torch.randn(80, 3, 8, 8, dtype=torch.float64)
    found = []
    for chunk in (8, 4, 2):  # a tenth of the images is held back: the same ones
        data = Samples(tuple((part,) for part in images.split(chunk)), real=False)
        found.append(bequest.prune(model, x, 0.5, data=data, round_to=1))
    for other in found[1:]:
        for name, tensor in found[0].model.state_dict().items():
            torch.testing.assert_close(other.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-5)
        for one, two in zip(other.plan.groups, found[0].plan.groups, strict=True):
            assert one.reconstruction_error == pytest.approx(two.reconstruction_error, rel=1e-4)


def test_the_same_seed_gives_the_same_bits():
    model, x = randomise(DepthwiseTail()), torch.zeros(1, 3, 8, 8)
    first, second, other = (
        bequest.prune(model, x, 0.5, restorer=Regression(images=64), seed=seed).model.state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())
    assert any(not torch.equal(other[name], tensor) for name, tensor in first.items())


def test_real_inputs_are_taken_from_a_loader():
    model, x = randomise(Plain()), torch.zeros(1, 3, 8, 8)
    images = torch.randn(96, 3, 8, 8)
    loader = [(batch, torch.zeros(len(batch))) for batch in images.split(40)]
    pruned = bequest.prune(model, x, 0.5, restorer="regression", data=loader, round_to=1)
    errors = []
    for restorer in ("none", "regression"):
        data = loader if restorer == "regression" else None
        pruned = bequest.prune(model, x, 0.5, restorer=restorer, data=data, round_to=1)
        errors.append(float((pruned.model(images) - model(images)).square().mean()))
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"restorer": "lbyl", "data": [torch.zeros(2, 3, 8, 8)]}, "read weights alone"),
        ({"restorer": "regression", "data": []}, "found none"),
        ({"restorer": "regression", "data": [torch.zeros(2, 3, 9, 8)]}, "expected inputs of shape"),
        ({"restorer": "regression", "data": [torch.full((2, 3, 8, 8), torch.nan)]}, "finite"),
    ],
)
def test_wrong_data(arguments, expected):
    with pytest.raises(UsageError, match=expected):
        bequest.prune(randomise(Plain()), torch.zeros(1, 3, 8, 8), 0.5, **arguments)


@pytest.mark.parametrize(
    "fields",
    [
        {"images": 0},
        {"source": "leafs"},
        {"ridge": -1.0},
        {"value_range": (1.0, 0.0)},
        {"inversion": -1},
    ],
)
def test_wrong_fields(fields):
    with pytest.raises(BequestError):
        Regression(**fields)


@pytest.mark.parametrize(
    ("effort", "fields", "expected"),
    [
        (10**13, {}, 12),
        (0, {}, 3),
        (0, {"inversion": 5}, 5),
        ("seven steps", {"images": 64}, 7),
    ],
)
def test_costly_networks_take_fewer_steps_of_inversion(effort, fields, expected, monkeypatch):
    model, x = randomise(Plain()).eval(), torch.zeros(2, 3, 8, 8)
    if effort == "seven steps":
        effort = 7 * 3 * 64 * bequest.cost(model, x[:1]).macs
    monkeypatch.setattr(synthetic, "EFFORT", effort)
    seen = []
    monkeypatch.setattr(
        synthetic, "inverted", lambda _, made, __, steps, *___, **____: seen.append(steps) or made
    )
    Regression(**fields).samples(model, x, None, 0)
    assert seen == [expected]


def test_too_few_samples_are_reported():
    model, x = randomise(Plain()), torch.zeros(1, 3, 8, 8)
    pruned = bequest.prune(model, x, 0.5, restorer=Regression(images=2), round_to=1)
    assert any(
        "held by the ridge alone" in note for one in pruned.plan.groups for note in one.notes
    )


@pytest.mark.parametrize("shape", [(4,), (4, 1), (3, 1, 1), (2, 50), (3, 32, 32), (1, 6, 6, 6)])
@pytest.mark.parametrize("source", DRAWINGS)
def test_sources_have_the_moments_or_the_range_that_is_asked_for(source, shape):
    generator = torch.Generator().manual_seed(0)
    images = DRAWINGS[source](32, shape, generator, None)
    assert images.shape == (32, *shape)
    dims = [d for d in range(images.ndim) if d != 1]
    torch.testing.assert_close(images.mean(dims), torch.zeros(shape[0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(images.std(dims), torch.ones(shape[0]), rtol=1e-2, atol=1e-2)
    placed = DRAWINGS[source](32, shape, generator, (-1.0, 3.0))
    assert placed.min() >= -1
    assert placed.max() <= 3
    assert placed.std() > 0.3


@pytest.mark.parametrize("value_range", [None, (0.0, 1.0)])
@pytest.mark.parametrize("images", [1, 2, 64])
@pytest.mark.parametrize("shape", [(1,), (6,), (1, 1), (6, 1), (6, 1, 1)])
def test_inputs_without_space_and_single_ones_are_made_up(shape, images, value_range):
    layers = {1: nn.Linear, 2: nn.Conv1d, 3: nn.Conv2d}
    layer = layers[len(shape)]
    sizes = [(shape[0], 16), (16, 16), (16, 4)]
    first, second, last = (layer(*size) if len(shape) == 1 else layer(*size, 1) for size in sizes)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last, nn.Flatten()).eval()
    method = Regression(images=images, value_range=value_range)
    made = method.samples(model, torch.zeros(1, *shape), None, seed=0)
    assert all(column.isfinite().all() for chunk in made.chunks for column in chunk)
    assert images < 64 or made.chunks[0][0].std() > 0.1
    pruned = bequest.prune(model, torch.zeros(1, *shape), 0.5, restorer=method, progress=False)
    assert all(parameter.abs().max() < 10 for parameter in pruned.model.parameters())


def test_half_of_a_real_network_leaves_and_most_of_its_accuracy_stays(shared):
    entry = bequest.zoo.entry("resnet56")
    model = bequest.zoo.create("resnet56").eval()
    bequest.zoo.load_weights(model, shared / "weights/resnet56_cifar10.safetensors")
    images = bequest.data.open_images(
        shared / "data/cifar10/test.npz",
        mean=entry.mean,
        std=entry.std,
        size=entry.input_shape,
        limit=250,
    )
    pruned = bequest.prune(
        model,
        torch.zeros(1, 3, 32, 32),
        0.5,
        criterion="l1",
        restorer=Regression(images=96, inversion=6),
        round_to=1,
    )
    assert bequest.evaluate(pruned.model, images).top1 > 80


class CastsInside(nn.Module):
    """A softmax in single precision that is put back into the type of the network."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        y = F.relu(self.first(x))
        return self.last(y * F.softmax(y.mean(1, keepdim=True), 0, dtype=torch.float32).to(y.dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("network", "shape"),
    [(Plain, (2, 3, 8, 8)), (DepthwiseTail, (2, 3, 8, 8)), (CastsInside, (2, 6))],
)
def test_half_precision_is_walked_in_single(network, shape, dtype):
    model = randomise(network()).to(dtype)
    single = copy.deepcopy(model).float()
    restorer = Regression(images=32)
    pruned, reference = (
        bequest.prune(one, torch.zeros(shape, dtype=kind), 0.5, restorer=restorer, round_to=1)
        for one, kind in ((model, dtype), (single, torch.float32))
    )
    assert pruned.plan.form == reference.plan.form == "module"
    rounded = copy.deepcopy(reference.model).to(dtype).float()
    for name, tensor in pruned.model.state_dict().items():
        assert tensor.dtype == (dtype if tensor.is_floating_point() else torch.int64)
        # Layers behind are fitted to what rounded ones write: close to those in single precision.
        expected = rounded.state_dict()[name].to(torch.float32)
        torch.testing.assert_close(tensor.float(), expected, rtol=0.05, atol=0.02)
    assert pruned.model(torch.randn(shape).to(dtype)).isfinite().all()
    inputs = torch.randn(256, *shape[1:])
    errors = [
        (one(inputs) - single.eval()(inputs)).square().mean().sqrt()
        for one in (pruned.model.float().eval(), rounded.eval())
    ]
    assert errors[0] <= 1.05 * errors[1]


def test_weights_that_outgrow_half_precision_are_refused():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].weight.data.mul_(1e-4)
    model[0].bias.data.zero_()
    model[2].weight.data.fill_(5e4)
    restorer = Regression(images=64, ridge=1e-6)
    with pytest.raises(BequestError, match=r"'2.weight' to fit into float16, .*model.float"):
        bequest.prune(model.half(), torch.zeros(1, 6).half(), 0.75, restorer=restorer, round_to=1)


def test_values_that_overflow_on_the_way_are_reported_with_the_layer():
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    for layer in model:
        layer.weight.data.mul_(1e15)
    with pytest.raises(BequestError, match=r"outputs of layer '[123]', found NaN"):
        bequest.prune(model, torch.zeros(1, 8), 0.5, restorer=Regression(images=16), round_to=1)


def test_constant_channels_before_a_batch_norm_are_named():
    model = randomise(Plain())
    model.conv1.weight.data[:5] = 0
    pruned = bequest.prune(model, torch.zeros(1, 3, 8, 8), 0.5, restorer="regression", round_to=1)
    assert "conv1: 5 of its channels are constant over the inputs" in pruned.plan.groups[0].notes
    assert pruned.model(torch.randn(2, 3, 8, 8)).isfinite().all()


def test_a_transposed_convolution_is_refitted():
    model, x = randomise(Decoder()), torch.zeros(1, 3, 8, 8)
    pruned = bequest.prune(
        model, x, {"deep": 0.5}, restorer=Regression(images=64, ridge=1e-4), round_to=1
    )
    plain = bequest.prune(model, x, {"deep": 0.5}, restorer="none", round_to=1)
    assert not any("not refitted" in note for one in pruned.plan.groups for note in one.notes)
    assert not torch.equal(pruned.model.up.weight, plain.model.up.weight)
    (group,) = pruned.plan.groups
    assert group.reconstruction_error < 1


class Positions(nn.Module):
    """Tokens at positions that the code counts, scaled by a constant that the code holds."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 12), nn.Embedding(9, 12)
        self.hidden, self.head = nn.Linear(12, 32), nn.Linear(32, 3)

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1], device=tokens.device)
        mask = torch.full((1, tokens.shape[1], 1), 0.5, device=tokens.device)
        x = (self.words(tokens) + self.places(places)) * mask * torch.tensor([2.0])
        return self.head(F.gelu(self.hidden(x)))


def test_tensors_that_the_code_makes_are_walked_where_the_network_is():
    model = Positions().eval()
    with torch.no_grad():
        model.hidden.weight[:8] = model.hidden.weight[8:16]
        model.hidden.bias[:8] = model.hidden.bias[8:16]
    tokens = torch.randint(0, 20, (64, 9))
    pruned = bequest.prune(
        model,
        tokens[:2],
        {"hidden": 0.25},
        criterion=PlantedFirst({"hidden": tuple(range(8))}),
        restorer=Regression(ridge=1e-9),
        data=[tokens],
        round_to=1,
    )
    assert pruned.plan.groups[0].removed == tuple(range(8))
    torch.testing.assert_close(pruned.model(tokens), model(tokens), rtol=0, atol=1e-3)

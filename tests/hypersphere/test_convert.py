import copy

import pytest
import torch
from torch import nn

from bequest.errors import ModelError, UsageError
from bequest.hypersphere import (
    CosineClassifier,
    Hyperspherical,
    convert,
    deconvert,
    prune,
    recover,
)
from tests.hypersphere.networks import LAYERS, Net, layer_and_input


@pytest.mark.parametrize("name", LAYERS)
def test_a_bare_layer_computes_the_same_there_and_back(name):
    layer, x = layer_and_input(name)
    before, state = layer(x), copy.deepcopy(layer.state_dict())
    on_sphere = convert(layer)
    assert isinstance(on_sphere, Hyperspherical)
    back = deconvert(on_sphere)
    assert type(back) is type(layer)
    assert repr(back) == repr(layer)
    torch.testing.assert_close(on_sphere(x), before, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(back(x), before, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(layer.state_dict()[key], value) for key, value in state.items())


def test_a_network_keeps_function_mode_and_dtype():
    model = Net().eval()
    model.norm.train()
    x = torch.randn(3, 3, 6, 6)
    before = copy.deepcopy(model)(x)
    on_sphere = convert(model)
    assert not on_sphere.first.training
    assert on_sphere.norm.training
    torch.testing.assert_close(copy.deepcopy(on_sphere)(x), before, rtol=0, atol=1e-5)
    back = deconvert(on_sphere)
    torch.testing.assert_close(back(x), before, rtol=0, atol=1e-5)
    assert back.state_dict().keys() == model.state_dict().keys()


def test_deconvert_after_training_computes_the_same():
    model = convert(Net())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        loss = model(torch.randn(8, 3, 6, 6)).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(deconvert(model)(x), model(x), rtol=0, atol=1e-5)


def test_a_cosine_classifier_and_back():
    model = convert(Net().eval(), classifier="head", scale=5)
    assert isinstance(model.head, CosineClassifier)
    x = torch.randn(2, 3, 6, 6)
    assert model(x).abs().max() <= 5
    torch.testing.assert_close(deconvert(model)(x), model(x))
    with pytest.raises(UsageError, match=r"classifier: expected .*\(head\), found 'first'"):
        convert(Net(), classifier="first")


def test_a_layer_in_two_places_stays_one():
    layer = nn.Linear(4, 4)
    model = convert(nn.Sequential(layer, nn.ReLU(), layer))
    assert isinstance(model[0], Hyperspherical)
    assert model[0] is model[2]


def test_what_reads_weights_in_its_own_way_is_left_alone():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    tied = nn.Linear(8, 8)
    other = nn.Linear(8, 8)
    other.weight = tied.weight
    model = nn.ModuleList([attention, tied, other, nn.Linear(8, 8), nn.ConvTranspose1d(8, 8, 3)])
    converted = [isinstance(part, Hyperspherical) for part in convert(model).modules()]
    assert sum(converted) == 1


def test_a_transformer_layer_keeps_its_function_on_the_fused_path():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        torch.testing.assert_close(convert(layer)(x), layer(x))


def test_recovered_and_pruned_networks_become_plain_too():
    model = Net().eval()
    x = torch.randn(2, 3, 6, 6)
    for made in (prune(model, 0.5), recover(prune(model, 0.5), "signed")):
        plain = deconvert(made)
        assert plain.state_dict().keys() == model.state_dict().keys()
        torch.testing.assert_close(plain(x), made(x))


def test_without_layers_or_without_a_plain_form_it_says_so():
    with pytest.raises(ModelError, match="no layer that can be pruned"):
        convert(nn.ReLU())
    with pytest.raises(ModelError, match="'linear' is not linear in its input"):
        deconvert(convert(Net(), "linear"))


def test_what_is_frozen_its_memory_format_and_its_names_stay():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8)]
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8, 4)).half()
    model = model.to(memory_format=torch.channels_last)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 > 0)

    def described(module):
        return {n: (p.requires_grad, p.stride(), p.dtype) for n, p in module.named_parameters()}

    on_sphere, pruned = convert(model), prune(model, 0.5)
    recovered = [recover(pruned, scope) for scope in ("filter", "layer", "signed")]
    for place in ("0", "1", "2"):
        weight = model.get_parameter(f"{place}.weight")
        directions = [on_sphere.get_parameter(f"{place}.direction")]
        directions += [one.get_parameter(f"{place}.sparse") for one in recovered]
        assert {one.requires_grad for one in directions} == {weight.requires_grad}
        assert {one.stride() for one in directions} == {weight.stride()}
        assert on_sphere.get_parameter(f"{place}.gain").requires_grad == weight.requires_grad
        assert (
            on_sphere.get_parameter(f"{place}.bias").requires_grad
            == model.get_parameter(f"{place}.bias").requires_grad
        )
    for one in (deconvert(on_sphere), pruned, prune(on_sphere, 0.5), *map(deconvert, recovered)):
        assert described(one) == described(model)


def test_a_frozen_classifier_stays_frozen():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).requires_grad_(False)

    on_sphere = convert(model, classifier="1")

    assert not any(parameter.requires_grad for parameter in on_sphere.parameters())
    assert not any(parameter.requires_grad for parameter in deconvert(on_sphere).parameters())

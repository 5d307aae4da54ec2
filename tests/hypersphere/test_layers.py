import math

import pytest
import torch
from torch import nn

from bequest.errors import ModelError, UsageError
from bequest.hypersphere import CosineClassifier, Hyperspherical, convert, orthogonality
from bequest.hypersphere.layers import to_sphere
from tests.hypersphere.networks import LAYERS, Net, layer_and_input

OPERATORS = ["cosine", "linear", "sigmoid"]


@torch.no_grad()
def naive(operator, weight, x):
    """One filter and one input vector, as the definition says it."""
    cosine = float(weight @ x / (weight.norm() * x.norm()))
    theta = math.acos(max(-1.0, min(1.0, cosine)))
    if operator == "cosine":
        return math.cos(theta)
    if operator == "linear":
        return 1 - 2 * theta / math.pi
    k = 0.3
    edge = math.exp(-math.pi / (2 * k))
    bent = math.exp(theta / k - math.pi / (2 * k))
    return (1 + edge) / (1 - edge) * (1 - bent) / (1 + bent)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("input_norm", [False, True])
def test_the_response_is_the_definition(operator, input_norm):
    layer, x = layer_and_input("linear")
    on_sphere = Hyperspherical(layer, operator, input_norm=input_norm)
    expected = torch.tensor(
        [
            [
                float(w.detach().norm())
                * naive(operator, w, v)
                * (1 if input_norm else float(v.norm()))
                for w in layer.weight
            ]
            for v in x
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(on_sphere(x), expected + layer.bias, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("input_norm", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_rescaling_a_filter_changes_nothing(name, operator, input_norm):
    layer, x = layer_and_input(name)
    on_sphere = Hyperspherical(layer, operator, input_norm=input_norm)
    before = on_sphere(x)
    factors = torch.rand(len(on_sphere.direction), dtype=torch.float64) * 9 + 0.1
    with torch.no_grad():
        on_sphere.direction.mul_(factors.reshape(-1, *[1] * (layer.weight.ndim - 1)))
    torch.testing.assert_close(on_sphere(x), before, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_a_normalised_input_makes_its_length_irrelevant(name):
    layer, x = layer_and_input(name)
    on_sphere = Hyperspherical(layer, input_norm=True)
    torch.testing.assert_close(on_sphere(5 * x), on_sphere(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradients_are_finite_where_filter_and_input_are_parallel(operator):
    layer = nn.Linear(3, 1).double()
    on_sphere = Hyperspherical(layer, operator, input_norm=True)
    x = torch.cat([layer.weight, -layer.weight]).detach().requires_grad_()
    on_sphere(x).sum().backward()
    assert x.grad.isfinite().all()
    assert on_sphere.direction.grad.isfinite().all()


def test_a_filter_of_zeros_gives_its_bias():
    layer, x = layer_and_input("conv1d")
    with torch.no_grad():
        layer.weight[2] = 0
    torch.testing.assert_close(
        Hyperspherical(layer)(x)[:, 2], layer.bias[2].expand(2, 9), rtol=0, atol=0
    )


def test_the_cosine_classifier_is_scaled_cosines():
    layer, x = layer_and_input("linear")
    expected = 7 * torch.nn.functional.cosine_similarity(x[:, None], layer.weight[None], dim=2)
    classifier = CosineClassifier(layer, scale=7)
    torch.testing.assert_close(classifier(x), expected)
    torch.testing.assert_close(classifier.plain()(x), expected)
    with pytest.raises(UsageError, match="scale"):
        CosineClassifier(layer, scale=-1)


def test_the_gradient_is_orthogonal_to_each_filter():
    layer, x = layer_and_input("conv2d")
    on_sphere = Hyperspherical(layer)
    on_sphere(x).square().sum().backward()
    inner = (on_sphere.direction * on_sphere.direction.grad).flatten(1).sum(dim=1)
    torch.testing.assert_close(inner, torch.zeros_like(inner), rtol=0, atol=1e-12)


def test_to_sphere_shortens_directions_and_keeps_the_function():
    model = convert(Net().double().eval())
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        model.first.direction.mul_(3)
    before = model(x)
    to_sphere(model)
    lengths = model.first.direction.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    torch.testing.assert_close(model(x), before)


def test_orthogonality_is_the_formula():
    layer, _ = layer_and_input("linear")
    V = torch.nn.functional.normalize(layer.weight, dim=1).T
    expected = 2e-4 * 0.5 * (V.T @ V - torch.eye(5)).square().sum()
    torch.testing.assert_close(orthogonality(convert(layer)), expected)
    with pytest.raises(ModelError, match="no hyperspherical layer"):
        orthogonality(layer)


def test_an_operator_that_is_not_linear_has_no_plain_weight():
    layer, _ = layer_and_input("linear")
    with pytest.raises(ModelError, match="'sigmoid'"):
        _ = Hyperspherical(layer, "sigmoid").weight
    with pytest.raises(UsageError, match="operator: expected one of cosine, linear, sigmoid"):
        Hyperspherical(layer, "tanh")

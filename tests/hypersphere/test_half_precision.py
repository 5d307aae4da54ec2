"""Filters and images of zeros, and numbers at the ends of half precision: finite, and learnable."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bequest.hypersphere import CosineClassifier, Hyperspherical, convert, deconvert, prune, recover
from bequest.hypersphere.geometry import unit

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def with_a_dead_filter(dtype):
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    return layer.to(dtype)


def finite(*tensors):
    return all(tensor is not None and bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", ["cosine", "linear", "sigmoid"])
@pytest.mark.parametrize("input_norm", [False, True])
@pytest.mark.parametrize("brightness", [0.0, 1e-4, 1.0, 300.0])
def test_black_and_bright_images_and_dead_filters(dtype, operator, input_norm, brightness):
    layer = Hyperspherical(with_a_dead_filter(dtype), operator, input_norm=input_norm)
    x = torch.full((2, 3, 5, 5), brightness, dtype=dtype)
    x[0] = 0
    x.requires_grad_()

    result = layer(x)
    result.float().sum().backward()

    assert result.dtype == dtype
    assert finite(result, x.grad, *(parameter.grad for parameter in layer.parameters()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cosine_classifier_of_a_vector_of_zeros(dtype):
    head = nn.Linear(4, 3)
    with torch.no_grad():
        head.weight[2] = 0
    head = CosineClassifier(head.to(dtype))
    x = torch.zeros(2, 4, dtype=dtype, requires_grad=True)

    for layer in (head, deconvert(head)):
        result = layer(x)
        result.float().sum().backward()

        assert torch.equal(result, torch.zeros_like(result))
        assert finite(x.grad, head.direction.grad)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dead_filter_survives_the_way_there_and_back_and_can_learn(dtype):
    layer = with_a_dead_filter(dtype)

    on_sphere = convert(layer)
    on_sphere(torch.ones(1, 3, 3, 3, dtype=dtype)).float().sum().backward()
    back = deconvert(on_sphere)
    recovered = recover(prune(on_sphere, 0.5))

    assert torch.equal(back.weight[1], layer.weight[1])
    assert torch.allclose(back.weight, layer.weight, rtol=1e-2, atol=1e-3)
    assert finite(*recovered.parameters())
    assert on_sphere.direction.grad[1].abs().min() > 0.5  # as much as the filter itself would get


def test_filters_so_small_that_their_squares_vanish():
    filters = torch.full((2, 3), 1e-5, dtype=torch.float16)

    assert torch.allclose(unit(filters).float().norm(dim=1), torch.ones(2), atol=2e-3)


def test_squares_that_autocast_would_overflow():
    layer = Hyperspherical(nn.Conv2d(3, 4, 3), "linear")
    x = torch.full((1, 3, 3, 3), 300.0)

    with torch.autocast("cpu", torch.float16):
        result = layer(x)

    assert torch.allclose(result.float(), layer(x), rtol=1e-2)


def test_means_of_more_weights_than_half_precision_counts():
    layer = nn.Linear(512, 512, bias=False).half()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 1.5, 512 * 512).view(512, 512))

    found = recover(prune(layer, 0.5), "layer")

    assert 0.5 < found.constant.min() == found.constant.max() < 1.5
    assert finite(*found.parameters())


def test_sums_of_more_inputs_than_half_precision_counts():
    layer = nn.Linear(70_000, 2, bias=False).half()
    with torch.no_grad():
        layer.weight.fill_(1e-4)
    x = torch.ones(1, 70_000, dtype=torch.float16)

    found = recover(prune(layer, 0.5))(x)

    assert torch.allclose(found.float(), torch.full((1, 2), 7.0), rtol=1e-2)

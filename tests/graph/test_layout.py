"""What pruning keeps of a model's tensors: memory format, what is frozen, names, dtype."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bequest
from bequest.restorers import Regression
from bequest.surgery.operation import laid_out_as


def network():
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4)]
    second = [nn.ReLU(), nn.ConvTranspose2d(16, 8, 2), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU()]
    third = [nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 3 * 3, 4)]
    return nn.Sequential(*first, *second, *third).eval()


@pytest.mark.parametrize("restorer", ["none", "lbyl", Regression(images=16, inversion=0)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format_and_what_is_frozen_stay(restorer, channels_last):
    form = torch.channels_last if channels_last else torch.contiguous_format
    model = network().to(memory_format=form)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 > 0)
    x = torch.rand(2, 3, 8, 8).to(memory_format=form)

    pruned = bequest.prune(model, x, 0.5, restorer=restorer, round_to=1, progress=False).model

    expected = network().to(memory_format=form)
    frozen = {name: p.requires_grad for name, p in model.named_parameters()}
    assert {name: p.requires_grad for name, p in pruned.named_parameters()} == frozen
    for name, parameter in pruned.named_parameters():
        empty = torch.empty(parameter.shape)
        if parameter.ndim == 4:
            empty = empty.to(memory_format=form)
        assert parameter.stride() == empty.stride(), name
    assert pruned(x).shape == expected(x).shape
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters())


def test_kernels_of_one_place_and_of_three_dimensions():
    for shape in ((6, 4, 1, 1), (6, 1, 3, 3), (1, 6, 1, 1), (6, 4, 1, 1, 1), (6, 4, 3, 3, 3)):
        form = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        for like in (torch.rand(shape), torch.rand(shape).to(memory_format=form)):
            values = torch.rand(shape)

            found = laid_out_as(like, values)

            assert found.stride() == like.stride()
            assert torch.equal(found, values)

"""Copies that share memory with a model, and how they leave it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bequest
from bequest.execution.copies import hollow_copy, own_memory, sharing_copy
from bequest.graph.trace import named_tensors


class Tied(nn.Module):
    """A weight under two names, a buffer, a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.register_buffer("scale", torch.ones(8))

    def forward(self, x):
        return self.last(self.first(x).relu() * self.scale)


def places(model):
    return {name: tensor.data_ptr() for name, tensor in named_tensors(model).items()}


def test_a_sharing_copy_shares_parameters_and_nothing_else():
    model = Tied()
    copied = sharing_copy(model)
    mine, theirs = places(copied), places(model)
    assert {name for name in mine if mine[name] == theirs[name]} == set(mine) - {"scale"}
    assert copied.last.weight is copied.first.weight
    assert [p.requires_grad for p in copied.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    own_memory(named_tensors(copied), named_tensors(model))
    assert not set(places(copied).values()) & set(theirs.values())
    assert copied.last.weight is copied.first.weight
    x = torch.randn(4, 8)
    assert torch.equal(copied(x), model(x))
    versions = [p._version for p in model.parameters()]
    with torch.no_grad():
        for tensor in named_tensors(copied).values():
            tensor.add_(1)
    assert [p._version for p in model.parameters()] == versions


def test_a_hollow_copy_runs_and_takes_no_writing():
    model = Tied()
    copied = hollow_copy(model)
    assert all(p.untyped_storage().nbytes() == p.itemsize for p in copied.parameters())
    assert copied(torch.randn(4, 8)).shape == (4, 8)
    with pytest.raises(RuntimeError, match="single memory location"), torch.no_grad():
        copied.first.weight.add_(1)


@pytest.mark.parametrize("restorer", ["none", "lbyl", "merge", "regression"])
def test_a_pruned_network_shares_no_memory_with_its_model(restorer):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5, bias=False)
    )
    before = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
    ratio = {"0": 0.5, "*": 0.0}
    pruned = bequest.prune(model, torch.zeros(2, 6), ratio, restorer=restorer, round_to=1)
    assert not set(places(pruned.model).values()) & set(places(model).values())
    with torch.no_grad():
        for tensor in pruned.model.parameters():
            tensor.zero_()
    assert all(torch.equal(t, before[name]) for name, t in named_tensors(model).items())

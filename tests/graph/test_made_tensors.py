"""Tensors that a network's code makes, and such as others have left in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bequest
from bequest.errors import ModelError
from bequest.graph.trace import trace
from bequest.restorers import Regression

X = torch.zeros(2, 6)
SHIFT = [0.1, -0.2, 0.3, 0.4, -0.5, 0.6]


class Made(nn.Module):
    """Two layers on what a function makes of the input."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(6, 16), nn.Linear(16, 3), function

    def forward(self, x):
        return self.b(torch.relu(self.a(self.function(x))))


FUNCTIONS = {
    "tensor": lambda x: x + torch.tensor(SHIFT),
    "tensor on a device": lambda x: x + torch.tensor(SHIFT, device=x.device),
    "a single number": lambda x: x * torch.tensor(0.5, device=x.device),
    "new_tensor": lambda x: x + x.new_tensor(SHIFT),
    "of numpy": lambda x: x + torch.as_tensor(np.array(SHIFT, np.float32), device=x.device),
    "a list as index": lambda x: x[:, [5, 4, 3, 2, 1, 0]],
    "an index on a device": lambda x: x[:, torch.tensor([1, 0, 3, 2, 5, 4], device=x.device)],
    "zeros of the batch": lambda x: x + torch.zeros(x.shape[0], 6, device=x.device),
    "arange": lambda x: x * torch.arange(6, device=x.device),
    "new_full": lambda x: x + x.new_full((6,), 0.7),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("restorer", [Regression(images=64), "lbyl"], ids=["regression", "lbyl"])
def test_their_numbers_are_met(function, restorer):
    torch.manual_seed(0)
    model = Made(function).eval()
    with torch.no_grad():  # every second channel is dead, so nothing may change
        model.a.weight[::2] = 0
        model.a.bias[::2] = 0
    pruned = bequest.prune(model, X, 0.5, restorer=restorer, round_to=1, progress=False)
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(pruned.model(inputs), model(inputs))
    assert not any("compared" in note for note in pruned.report.notes)


@pytest.mark.parametrize("name", ["tensor on a device", "new_tensor", "a list as index"])
def test_a_trace_holds_their_values(name):
    network = trace(Made(FUNCTIONS[name]).eval(), X)
    (constant,) = network.constants.values()
    assert constant.tolist() in ([pytest.approx(SHIFT)], pytest.approx(SHIFT), [5, 4, 3, 2, 1, 0])


class Remembering(nn.Module):
    """Sets an attribute in each pass; reads it in the next one where it is a cache."""

    def __init__(self, *, cache):
        super().__init__()
        self.a, self.b, self.cache = nn.Linear(6, 16), nn.Linear(16, 3), cache
        self.inner = nn.Module()

    def forward(self, x):
        if self.cache:
            if not hasattr(self.inner, "mask"):
                self.inner.mask = torch.ones(1, 6)
            x = x * self.inner.mask
        else:
            self.inner.last = self.a(x)
        return self.b(torch.relu(self.a(x)))


def exported(model):
    torch.export.export(model, (X,))
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prepare", [exported, lambda model: model(X) is None or model])
@pytest.mark.parametrize("restorer", [Regression(images=16), "none"], ids=["regression", "none"])
def test_what_a_pass_has_left_and_nobody_reads_is_no_hindrance(prepare, restorer):
    model = Remembering(cache=False).eval()
    prepare(model)
    pruned = bequest.prune(model, X, 0.5, restorer=restorer, round_to=1, progress=False)
    assert pruned.model.a.out_features == 8


@pytest.mark.filterwarnings("ignore")
def test_a_tensor_without_data_that_the_network_reads_is_named():
    model = exported(Remembering(cache=True).eval())
    if not isinstance(model.inner.mask, torch._subclasses.FakeTensor):
        pytest.skip("this torch.export leaves nothing behind")
    with pytest.raises(ModelError, match=r"'inner.mask' holds a tensor without data.*export"):
        bequest.prune(model, X, 0.5, restorer=Regression(images=16), progress=False)

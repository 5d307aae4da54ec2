"""Measuring runs the model that it is given, and leaves it as it was, also where it fails."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bequest
from bequest.errors import UsageError
from bequest.measure import cost


class Counting(nn.Module):
    """Counts its calls in a buffer, keeps its last input in another, and may fail."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU())
        self.head = nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", None)
        self.fails_at = 10**9

    def forward(self, x):
        self.calls += 1
        self.last = x.detach().clone()
        if self.calls >= self.fails_at:
            raise RuntimeError("enough")
        return self.head(self.layers(x))


X, Y = torch.rand(6, 3), torch.tensor([0, 1, 2, 3, 0, 1])

MEASURES = {
    "evaluate": lambda model: bequest.evaluate(model, [(X, Y)] * 3),
    "robustness": lambda model: bequest.robustness(model, [(X, Y)] * 3, "pgd", 0.01, steps=2),
    "latency": lambda model: bequest.latency(model, X, repeats=3, warmup=1),
    "cost": lambda model: [cost(model, X) for _ in range(3)],
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("fails_at", [10**9, 2])
def test_modes_buffers_and_gradients_are_as_before(measure, fails_at):
    torch.manual_seed(0)
    model = Counting().train()
    model.layers[1].eval()
    buffer = model.calls
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]

    model.fails_at = fails_at
    if fails_at == 2 and measure is not MEASURES["cost"]:
        with pytest.raises(UsageError, match="enough"):
            measure(model)
    else:
        measure(model)

    assert model.calls is buffer
    assert model.last is None
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())

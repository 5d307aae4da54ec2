"""Tracing ends: a loop that is unrolled too far is refused, not waited for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bequest
from bequest.errors import ModelError
from bequest.graph import trace as tracing


class Recurrent(nn.Module):
    """A loop over time in Python: as many operators as the sequence has steps."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x[:, 0]
        for moment in x.unbind(1):
            state = torch.tanh(self.step(state) + moment)
        return self.head(state)


def test_a_loop_that_is_unrolled_too_far_is_refused(monkeypatch):
    monkeypatch.setattr(tracing, "MOST_OPERATORS", 300)
    model = Recurrent()
    bequest.prune(model, torch.zeros(2, 4, 8), 0.5, groups="all", restorer="none")
    with pytest.raises(
        ModelError, match=r"Recurrent: expected .* at most 300 operators.* fewer steps"
    ):
        bequest.prune(model, torch.zeros(2, 400, 8), 0.5, groups="all", restorer="none")

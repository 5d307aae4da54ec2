"""A refit that makes things worse on inputs that it has not seen is said to."""

from __future__ import annotations

import torch
from torch import nn

import bequest


def _notes(x: torch.Tensor) -> str:
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    restorer = bequest.restorers.Regression(ridge=0.0, images=len(x))
    pruned = bequest.prune(model, x[:1], 0.25, restorer=restorer, data=[x], round_to=1)
    (plan,) = pruned.plan.groups
    worse = plan.reconstruction_error > 1.05 * plan.unrestored_error
    assert worse == any("further from the dense network" in note for note in plan.notes)
    return " ".join(plan.notes)


def test_rows_that_are_fewer_than_unknowns_and_a_ridge_of_zero_are_too_little():
    torch.manual_seed(0)
    x = torch.randn(20, 16)
    x[:2] *= 30  # those that are held back are unlike the others
    assert "further from the dense network than without the refit" in _notes(x)


def test_enough_rows_are_enough():
    assert "further" not in _notes(torch.randn(2000, 16))

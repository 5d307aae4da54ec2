"""Norms over channels between a removal and its readers: regression sees what they make of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bequest

NORMS = {
    "layer norm": lambda: nn.LayerNorm(24),
    "RMS norm": lambda: nn.RMSNorm(24),
    "group norm": lambda: nn.GroupNorm(3, 24),
}


def _error(pruned: nn.Module, dense: nn.Module, x: torch.Tensor) -> float:
    """‖dense − pruned‖ / ‖dense − mean‖."""
    with torch.no_grad():
        y, z = dense(x), pruned(x)
    return float((y - z).norm() / (y - y.mean(0)).norm())


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS.keys())
def test_regression_makes_up_for_statistics_of_fewer_channels(norm):
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), norm(), nn.Linear(24, 5)).eval()
    nn.init.uniform_(model[2].weight, 0.5, 1.5)
    x, fresh = torch.randn(1024, 6), torch.randn(1024, 6)
    plain = bequest.prune(model, x[:1], 0.5, restorer="none", round_to=1)
    restorer = bequest.restorers.Regression(images=1024)
    pruned = bequest.prune(model, x[:1], 0.5, restorer=restorer, data=[x], round_to=1)
    (plan,) = pruned.plan.groups
    found = _error(pruned.model, model, fresh)
    assert found < 0.9 * _error(plain.model, model, fresh)
    assert plan.reconstruction_error == pytest.approx(found, rel=0.1)
    assert any("statistics are those of the channels that stay" in note for note in plan.notes)


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS.keys())
def test_weight_space_leaves_them_alone_and_says_so(norm):
    model = nn.Sequential(nn.Linear(6, 24), norm(), nn.Linear(24, 5)).eval()
    (plan,) = bequest.prune(model, torch.zeros(1, 6), 0.5, restorer="lbyl").plan.groups
    assert plan.restored_by == "none"
    assert any("lies between producer and consumer" in note for note in plan.notes)

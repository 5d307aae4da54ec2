from __future__ import annotations

import pytest
import torch
from torch import nn

import bequest
from bequest import robust
from bequest.errors import ModelError, UsageError
from tests.robust.networks import ACTIVATIONS, mlp, randomised


def test_the_radius_of_a_linear_classifier_is_half_its_margin():
    """x = (0.7, 0.3) turns where both meet, at 0.5; (0.1, 0) at 0.05, unless x1 stops before."""
    x = torch.tensor([[0.7, 0.3], [0.1, 0.0]], dtype=torch.float64)
    model = nn.Linear(2, 2, bias=False).double()
    model.load_state_dict({"weight": torch.eye(2, dtype=torch.float64)})

    found = robust.certified_radius(model, x)
    alone = robust.certified_radius(model, x[1:], (torch.zeros(2), torch.tensor([1.0, 0.02])))

    assert found.tolist() == pytest.approx([0.2, 0.05], abs=2e-6)
    assert alone.item() == pytest.approx(0.08, abs=2e-6)  # x1 stops at 0.02


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_attack_succeeds_within_the_radius(activation):
    model = randomised(mlp(ACTIVATIONS[activation]), torch.Generator().manual_seed(3))
    x = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    radius = robust.certified_radius(model, x)
    data = [(x, model(x).argmax(1))]

    found = bequest.robustness(model, data, "pgd", 0.999 * radius[:, None], steps=20)

    assert (radius > 0).any()
    assert found.robust == 40


def test_what_cannot_be_proven_is_refused_by_name():
    class Tangent(nn.Module):
        def forward(self, x):
            return torch.tan(x)

    with pytest.raises(ModelError, match="tan"):
        robust.certified_radius(Tangent(), torch.rand(2, 3))
    with pytest.raises(ModelError, match=r"\(B, K\)"):
        robust.certified_radius(nn.Linear(3, 1), torch.rand(2, 3))
    with pytest.raises(UsageError, match="floating-point"):
        robust.certified_radius(nn.Linear(3, 2), torch.ones(2, 3, dtype=torch.int64))


def test_inputs_outside_of_the_range_are_refused():
    with pytest.raises(UsageError, match=r"found -2 to 3"):
        robust.certified_radius(nn.Linear(2, 2), torch.tensor([[3.0, -2.0]]))

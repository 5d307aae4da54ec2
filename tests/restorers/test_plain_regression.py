"""The ridge regression of GRAIL and CORP, against the equations solved by hand."""

import torch
from torch import nn

import bequest
from bequest.restorers import Regression


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.wide, self.narrow = nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(x + self.narrow(self.wide(x).relu()))


def test_only_layers_that_read_fewer_channels_are_refitted_to_what_they_wrote():
    torch.manual_seed(0)
    model, data = Branches().double().eval(), torch.randn(128, 6).double()
    call = {"criterion": "l1", "data": [data], "round_to": 1, "progress": False}
    example = torch.zeros(1, 6).double()
    restorer = Regression(images=128, plain=True, ridge=1e-2)
    found = bequest.prune(model, example, {"wide": 0.5}, restorer=restorer, **call)
    new, kept = found.model, [i for i in range(12) if i not in found.plan.groups[0].removed]
    with torch.no_grad():
        assert torch.equal(new.head.weight, model.head.weight)
        assert torch.equal(new.head.bias, model.head.bias)
        assert torch.equal(new.wide.weight, model.wide.weight[kept])

        stream = model.stem(data).relu()
        dense = model.narrow(model.wide(stream).relu())
        reads = new.wide(stream).relu()
        after = (new.narrow(reads) - dense).square().sum()
        rows = torch.cat([reads, torch.ones(128, 1)], dim=1)
        least = (rows @ (torch.linalg.pinv(rows) @ dense) - dense).square().sum()
        before = nn.functional.linear(reads, model.narrow.weight[:, kept], model.narrow.bias)
    assert least <= after <= 1.1 * least
    assert after < 0.1 * (before - dense).square().sum()
    assert found.plan.recipe["restorer"]["plain"] is True


def test_plans_of_the_default_read_as_before():
    torch.manual_seed(0)
    found = bequest.prune(
        Branches().eval(), torch.zeros(1, 6), 0.5, restorer=Regression(refine=0), progress=False
    )
    assert "plain" not in found.plan.recipe["restorer"]

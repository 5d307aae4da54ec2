"""Which sums are residual streams, and which are one layer or the inside of one branch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace
from tests.graph.masking import plainly
from tests.networks import randomise
from tests.random_networks.oracle import masked


class Pieces(nn.Module):
    """RepVGG's and MobileOne's layers: a sum of convolutions of one map, and of the map itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 1)
        self.wide, self.narrow = nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.Conv2d(12, 12, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(2))
        self.each = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1, groups=12) for _ in range(2))
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(self.norms[0](self.wide(x)) + self.narrow(x) + self.norms[1](x))
        return self.last(F.relu(self.each[0](x) + self.each[1](x) + x))


class Cascade(nn.Module):
    """Res2Net's branch: what a convolution makes of a part is added to the next part."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 1)
        self.steps = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = F.relu(self.first(x)).split(4, 1)
        one = F.relu(self.steps[0](parts[0]))
        two = F.relu(self.steps[1](one + parts[1]))
        return self.last(torch.cat([one, two, parts[2]], 1))


class Halves(nn.Module):
    """Both halves of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 24), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        one, two = torch.tanh(self.first(x.mean((2, 3)))).chunk(2, -1)
        return self.last(one + two)


class Passed(nn.Module):
    """A stream: a branch reads it and is added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 1)
        self.down, self.last = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(F.relu(x + self.down(F.relu(self.up(x)))))


class Beside(Passed):
    """Two layers of different inputs are added up."""

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.first(x))
        return self.last(F.relu(self.up(a) + self.down(F.avg_pool2d(F.relu(a - 1), 1))))


def prepared(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return randomise(kind()).double(), torch.randn(2, 3, 6, 6).double()


@pytest.mark.parametrize("kind", [Pieces, Cascade, Halves])
@torch.no_grad()
def test_what_is_no_stream_leaves_by_default(kind):
    model, x = prepared(kind)
    pruned = plainly(model, x, groups="inner")
    assert not pruned.report.refused
    assert {one.kind for one in pruned.plan.groups} == {"inner"}
    torch.testing.assert_close(pruned.model(x), masked(model, pruned.plan.surgery)(x))


@pytest.mark.parametrize("kind", [Passed, Beside])
def test_streams_stay_by_default(kind):
    model, x = prepared(kind)
    (stream,) = (one for one in group(read(trace(model, x))).groups if "down" in one.layers)
    assert stream.kind == "residual"

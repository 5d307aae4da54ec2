"""Property test: networks of random blocks lose planted duplicates exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import bequest
from bequest.criteria.base import Criterion
from bequest.graph.chains import bind
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.graph.units import Unit
from tests.networks import randomise

BLOCKS = ("plain", "residual", "concat", "depthwise", "grouped", "pool", "gate")
ACTIVATIONS = (F.relu, F.gelu, torch.tanh, F.leaky_relu)


class Block(nn.Module):
    """One of several ways to go on from ``width`` channels."""

    def __init__(self, kind: str, width: int, out: int, norm: bool, bias: bool, act: int) -> None:
        super().__init__()
        self.kind, self.activation = kind, ACTIVATIONS[act]
        self.width = {"residual": width, "pool": width, "gate": width}.get(kind, out)
        middle = self.width if kind != "grouped" else 4 * max(1, out // 4)
        self.first = nn.Conv2d(width, middle, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(middle) if norm else nn.Identity()
        if kind == "depthwise":
            self.second = nn.Conv2d(middle, middle, 3, padding=1, groups=middle, bias=bias)
        elif kind == "grouped":
            self.second = nn.Conv2d(middle, middle, 3, padding=1, groups=4, bias=bias)
            self.width = middle
        else:
            self.second = nn.Conv2d(middle, self.width, 1, bias=bias)
        if kind == "concat":
            self.width += width

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm(self.first(x)))
        if self.kind == "pool":
            return F.avg_pool2d(x, 2, 1)
        y = self.second(y)
        if self.kind == "residual":
            return x + y
        if self.kind == "concat":
            return torch.cat([x, self.activation(y)], 1)
        if self.kind == "gate":
            return x * torch.sigmoid(y)
        return self.activation(y)


class Network(nn.Module):
    """A stem, random blocks, and a classifier on flattened or averaged maps."""

    def __init__(self, spec: list[tuple[str, int, bool, bool, int]], flatten: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList()
        width = 8
        for kind, out, norm, bias, act in spec:
            self.blocks.append(Block(kind, width, out, norm, bias, act))
            width = self.blocks[-1].width
        self.flatten = flatten
        self.hidden = nn.Linear(width * (4 if flatten else 1), 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = F.adaptive_avg_pool2d(x, 2 if self.flatten else 1).flatten(1)
        return self.head(F.relu(self.hidden(x)))


block = st.tuples(
    st.sampled_from(BLOCKS), st.integers(1, 19), st.booleans(), st.booleans(), st.integers(0, 3)
)
networks = st.builds(Network, st.lists(block, min_size=1, max_size=4), st.booleans())
relaxed = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.generate],
)


@dataclass(frozen=True)
class FirstLeave(Criterion):
    """A criterion of the user's own: the first channels leave."""

    name: ClassVar[str] = "first-leave"

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        return torch.arange(unit.size).double()


@relaxed
@given(networks, st.integers(0, 3))
def test_planted_duplicates_leave_exactly(network, shift):
    """The first half of the filters of every restorable layer repeats the last half."""
    torch.manual_seed(0)
    model = randomise(network).double()
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    channels, held = group(read(trace(model, x))), named_tensors(model)
    views = [
        one
        for one in channels.groups
        if one.free > 1 and not one.is_output and bind(channels, one, held).unit.obstacle is None
    ]
    for view in views:
        layer = model.get_submodule(view.name)
        norm = model.get_submodule(view.name.replace("first", "norm"))
        tensors = list(layer.state_dict().values())
        if view.name.endswith("first") and isinstance(norm, nn.BatchNorm2d):
            tensors += [tensor for tensor in norm.state_dict().values() if tensor.ndim]
        half = view.size // 2
        for tensor in tensors:
            tensor[:half] = tensor[view.size - half :].roll(shift, 0)
    ratio = {view.name: (view.size // 2) / view.size for view in views} or 0.0
    pruned = bequest.prune(model, x, ratio, criterion=FirstLeave(), restorer="lbyl", round_to=1)
    plainly = [one.name for one in pruned.plan.groups if one.restored_by != "lbyl"]
    assert not plainly
    assert len(pruned.plan.groups) + len(pruned.plan.refused) == len(views)
    with torch.no_grad():
        torch.testing.assert_close(pruned.model(x), model(x), rtol=0, atol=1e-6)

"""Refinement: regions as they should be, never worse, the same for equal seeds."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import bequest
from bequest import config
from bequest.calibration import walk
from bequest.calibration.regions import Region
from bequest.calibration.stream import Stream
from bequest.errors import UsageError
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, operator_of, trace
from bequest.restorers import Regression, by_walk, refine
from bequest.surgery.cut import Chosen, Cut
from tests.networks import randomise


class Block(nn.Module):
    """A residual block with a depthwise layer and a gate, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.expand = nn.Conv2d(8, 16, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.project = nn.Conv2d(16, 8, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        inner = F.relu6(self.norm1(self.expand(x)))
        inner = F.relu6(self.norm2(self.depthwise(inner)))
        x = x + self.norm3(self.project(inner))
        return self.head(F.relu(x).mean((2, 3)))


class Gated(nn.Module):
    """A gated MLP without norms."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate = nn.Linear(12, 24), nn.Linear(12, 24)
        self.down = nn.Linear(24, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


class Attention(nn.Module):
    """Heads, whose values and queries leave together."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.out = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        parts = (each(x).unflatten(-1, (4, 4)).transpose(1, 2) for each in self.qkv)
        mixed = F.scaled_dot_product_attention(*parts)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


SHAPES = {Block: (3, 8, 8), Gated: (12,), Attention: (6, 16)}


def made(network: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return randomise(network()).eval(), torch.randn(
        384 if network is Gated else 96, *SHAPES[network]
    )


def cut_in_half(model: nn.Module, x: Tensor) -> Cut:
    channels = group(read(trace(model, x)))
    chosen = []
    for member in channels.groups:
        if member.kind == "inner" and not member.is_output and member.free > 1:
            keep = torch.arange(member.size).numpy() % 2 == 0
            chosen.append(Chosen(member, keep))
    return Cut.of(channels, chosen)


@pytest.mark.parametrize(
    ("network", "last", "layers"),
    [
        (Block, "project", {"expand", "depthwise", "project"}),
        (Gated, "down", {"up", "gate", "down"}),
    ],
)
def test_a_region_reaches_back_to_who_writes_the_channels(network, last, layers):
    model, x = made(network)
    cut = cut_in_half(model, x[:2])
    network_ = cut.channels.reading.network
    ends = [node for node in network_.nodes if operator_of(node) in ("conv2d", "linear")]
    found = filter(None, (Region.behind(cut, node) for node in ends))
    read = {
        region: {v.name for node in region.nodes for v in node.all_input_nodes} for region in found
    }
    tensors = {r: {network_.tensors.get(one, "") for one in names} for r, names in read.items()}
    (region,) = (r for r, names in tensors.items() if f"{last}.weight" in names)
    assert {name.split(".")[0] for name in tensors[region] if name.endswith("weight")} >= layers
    assert len(region.outside) == 1


@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize("real", [True, False])
def test_no_region_gets_worse_on_inputs_not_learnt_from(network, real, monkeypatch):
    model, x = made(network)
    gains = []
    told = refine.Refine.__call__

    def noted(self, layer):
        told(self, layer)
        gains.extend(self.gains.values())

    monkeypatch.setattr(refine.Refine, "__call__", noted)
    found = bequest.prune(
        model,
        x[:2],
        0.5,
        restorer=Regression(images=384, inversion=0, refine=24),
        data=[x] if real else None,
        round_to=1,
    )
    assert gains
    assert all(gain.after <= gain.before for gain in gains)
    assert any(gain.after < gain.before for gain in gains)
    assert found.report.groups[0].restored_by == "regression"


def test_it_fits_inputs_held_back_from_all_of_it_better():
    model, x = made(Block)
    errors = [
        bequest.prune(model, x[:2], 0.9, restorer=Regression(refine=steps), data=[x], round_to=1)
        .report.groups[0]
        .reconstruction_error
        for steps in (0, 60)
    ]
    assert errors[1] < errors[0]


def test_where_little_is_left_to_mend_little_is_moved(monkeypatch):
    """Tenfold less error, a hundredth of the step: made-up inputs are not learnt by heart."""
    model, x = made(Block)
    rates, lefts, best = [], [], refine.Refine._best

    class Noted(refine.Descent):
        def __init__(self, start, loss, rate, steps):
            super().__init__(start, loss, rate, steps)
            rates.append(rate)

    def noted(self, task, start, before):
        lefts.append(before)
        return best(self, task, start, before)

    monkeypatch.setattr(refine, "Descent", Noted)
    monkeypatch.setattr(refine.Refine, "_best", noted)
    for ratio in (0.5, 0.9):
        bequest.prune(model, x[:2], ratio, restorer=Regression(refine=2), data=[x], round_to=1)
    (little, much), (slow, fast) = lefts, rates
    assert little < 0.05
    assert 0.2 < much < 0.5
    assert slow / fast == pytest.approx((little / much) ** 2, rel=1e-6)


def test_equal_seeds_give_equal_bits_and_nothing_pruned_nothing_changed():
    model, x = made(Block)
    restorer = Regression(images=64, inversion=0, refine=8)
    first, second = (
        named_tensors(bequest.prune(model, x[:2], 0.5, restorer=restorer, round_to=1).model)
        for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    whole = named_tensors(bequest.prune(model, x[:2], 0.0, restorer=restorer).model)
    assert all(torch.equal(whole[name], value) for name, value in named_tensors(model).items())


def test_steps_that_diverge_leave_the_closed_form(monkeypatch):
    model, x = made(Block)
    monkeypatch.setattr(refine, "RATE", 1e30)
    closed, refined = (
        named_tensors(
            bequest.prune(
                model, x[:2], 0.5, restorer=Regression(refine=steps), data=[x], round_to=1
            ).model
        )
        for steps in (0, 16)
    )
    assert all(torch.equal(closed[name], refined[name]) for name in closed)


def test_what_a_region_was_run_through_is_let_go_at_once(monkeypatch):
    streams = []

    class Watched(Stream):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            streams.append(weakref.ref(self))

    monkeypatch.setattr(walk, "Stream", Watched)
    gc.disable()
    try:
        bequest.prune(
            randomise(Block()), torch.zeros(1, 3, 8, 8), 0.5, round_to=1,
            restorer=Regression(images=64, inversion=0, refine=2),
        )  # fmt: skip
        alive = sum(one() is not None for one in streams)
    finally:
        gc.enable()
    assert len(streams) > 10
    assert alive <= 2  # those of the walk itself


def test_a_plan_speaks_of_it_where_it_was_asked_for():
    assert "refine" not in config.to_json(Regression())
    said = config.to_json(Regression(refine=8))
    assert said["refine"] == 8
    assert config.from_json("restorer", said) == Regression(refine=8)


@pytest.mark.parametrize("steps", [-1, 1.5, True])
def test_wrong_steps(steps):
    with pytest.raises(UsageError, match="refine ≥ 0"):
        Regression(refine=steps)


def test_errors_without_the_refit_are_those_of_the_dense_weights(monkeypatch):
    model, x = made(Block)
    held = []

    class Noted(by_walk.Measure):
        def __init__(self, walk, former, new_biases):
            super().__init__(walk, former, new_biases)
            held.append({one: former.get(one, walk.tensor(one)) for one in former.changed})

    monkeypatch.setattr(by_walk, "Measure", Noted)
    for steps in (0, 24):
        bequest.prune(model, x[:2], 0.9, restorer=Regression(refine=steps), data=[x], round_to=1)
    closed, refined = held
    assert closed.keys() < refined.keys()
    assert all(torch.equal(refined[name], value) for name, value in closed.items())


class Tied(nn.Module):
    """One parameter is read inside and outside of the region that is refined."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 6)
        self.third, self.head = nn.Linear(6, 12), nn.Linear(12, 3)
        self.shift = nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(F.relu(self.first(x) + self.shift))
        return self.head(F.relu(self.third(hidden) + self.shift))


def test_nothing_that_is_not_moved_gets_gradients():
    torch.manual_seed(0)
    restorer, x = bequest.restorers.Regression(refine=8), torch.randn(64, 6)
    found = bequest.prune(
        Tied().eval(), x[:2], 0.5, restorer=restorer, data=[x], round_to=1, progress=False
    )
    assert all(parameter.grad is None for parameter in found.model.parameters())

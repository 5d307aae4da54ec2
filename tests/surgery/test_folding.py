"""Weights that are computed from parameters: stored on the copy, and pruned like others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import bequest
from bequest.criteria.base import Criterion
from bequest.errors import UsageError

DEAD = (1, 4, 5, 9)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class ByBatchNorm(nn.Conv2d):
    """timm's ScaledStdConv2dSame: pads as the input's size asks for."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        w = F.batch_norm(rows, None, None, weight=self.gain.view(-1), training=True, momentum=0.0)
        more = (-x.shape[-1]) % 2
        return F.conv2d(F.pad(x, [1, 1 + more, 1, 1 + more]), w.reshape_as(self.weight), self.bias)


class Equalised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 0.3, self.bias * 0.5)


class LowRank(nn.Conv2d):
    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.a = nn.Parameter(torch.randn(2, self.weight[0].numel()))
        self.b = nn.Parameter(torch.randn(self.out_channels, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight + (self.b @ self.a).view_as(self.weight), self.bias)


def chain(convolution: type[nn.Conv2d] = nn.Conv2d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(convolution(3, 12, 3), nn.ReLU(), convolution(12, 12, 3), nn.ReLU()),
        *(convolution(12, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def changed(how) -> nn.Sequential:
    model = chain()
    for one in (model[0], model[2], model[4]):
        how(one)
    return model


CODE: dict[str, Any] = {
    kind.__name__: kind for kind in (Standardised, ByBatchNorm, Equalised, LowRank)
}
UTILITIES: dict[str, Any] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "older weight norm": weight_norm,
    "older spectral norm": spectral_norm,
    "masks": lambda one: prune.random_unstructured(one, "weight", 0.3),
}


def made(name: str) -> nn.Sequential:
    model = chain(CODE[name]) if name in CODE else changed(UTILITIES[name])
    return model.double().eval()


class Named(Criterion):
    """Ranks some channels below all others."""

    name = "named"

    def _scores(self, unit, seed: int) -> Tensor:
        scores = torch.ones(unit.size, dtype=torch.float64)
        scores[list(DEAD)] = 0
        return scores


@torch.no_grad()
def silence(model: nn.Module) -> None:
    """Filters of the first layers that say nothing: a ReLU follows a bias far below zero."""
    for one in (model[0], model[2]):
        one.bias[list(DEAD)] = -1e4


def output(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("name", [*CODE, *UTILITIES])
def test_dead_channels_leave_exactly_and_come_back(name, tmp_path):
    model, x = made(name), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    silence(model)
    before = copy.deepcopy(model.state_dict())
    wanted = output(model, x)
    ratios = {"0": 1 / 3, "2": 1 / 3}
    pruned = bequest.prune(
        model, x, ratios, criterion=Named(), restorer="none", round_to=1, progress=False
    )
    assert {one.name: one.removed for one in pruned.plan.groups} == {"0": DEAD, "2": DEAD}
    torch.testing.assert_close(output(pruned.model, x), wanted, rtol=0, atol=1e-10)
    assert pruned.plan.form == ("program" if name in CODE else "module")
    (note,) = (one for one in pruned.report.notes if "computed from other parameters" in one)
    assert all(f"'{layer}.weight'" in note for layer in (0, 2, 4))
    names = {one.removesuffix(".weight").removesuffix(".bias") for one in pruned.model.state_dict()}
    assert names == {"0", "2", "4"}
    assert all(one.requires_grad for one in pruned.model.parameters())
    pruned.save(tmp_path / "out")
    loaded = bequest.load(tmp_path / "out", made(name))
    assert torch.equal(output(loaded, x), output(pruned.model, x))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(output(model, x), wanted)


@pytest.mark.parametrize(
    ("name", "restorer"), [("Standardised", "lbyl"), ("weight norm", "regression")]
)
def test_they_are_restored_as_plain_layers_are(name, restorer):
    model, x = made(name).float(), torch.randn(8, 3, 12, 12)
    plain = chain()
    with torch.no_grad():
        for number in (0, 2, 4):
            weight = model[number].weight
            if name == "Standardised":
                weight = weight - weight.mean((1, 2, 3), keepdim=True)
                weight = weight / (weight.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
            plain[number].weight.copy_(weight)
            plain[number].bias.copy_(model[number].bias)
    one, other = (
        bequest.prune(each, x, 0.5, restorer=restorer, progress=False)
        for each in (model, plain.eval())
    )
    torch.testing.assert_close(output(one.model, x), output(other.model, x), rtol=1e-4, atol=1e-5)
    assert [g.removed for g in one.plan.groups] == [g.removed for g in other.plan.groups]
    assert {g.restored_by for g in one.plan.groups} == {restorer}


def test_inspection_names_them_as_layers():
    views = bequest.inspect(chain(Standardised), torch.zeros(1, 3, 12, 12)).groups
    assert [view.name for view in views] == ["0", "2", "4"]
    assert [view.prunable for view in views] == [12, 12, 0]


class Shares(nn.Module):
    """A weight that is computed from what something else reads, too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.up = nn.Embedding(9, 12), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(self.up(self.table(x))), self.table.weight * 0.5)


def test_a_parameter_that_is_read_elsewhere_stays_shared():
    model, x = Shares().eval(), torch.zeros(1, 5, dtype=torch.long)
    pruned = bequest.prune(model, x, 0.5, restorer="none", groups="all", progress=False)
    assert pruned.plan.form == "module"
    assert not any("computed" in note for note in pruned.report.notes)


class Lonely(nn.Module):
    """Of a single sample an operator less, which changes nothing or everything."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 3)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(x, self.first.weight * 0.3, self.first.bias).relu()
        return self.last(hidden * self.factor if len(x) > 1 else hidden)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_single_sample_tells_of_several_where_that_holds_for_itself(factor):
    torch.manual_seed(0)
    model, x = Lonely(factor).eval(), torch.randn(5, 6)
    for count in (1, 2):
        found = bequest.prune(
            model, x[:count], {"first": 0.5}, restorer="none", round_to=1, criterion="l1"
        )
        whole = copy.deepcopy(found.model)
        (group,) = found.plan.groups
        assert group.name == "first"
        dead = Lonely(factor).eval()
        dead.load_state_dict(model.state_dict())
        dead.last.weight.data[:, list(group.removed)] = 0
        sizes = (count,) if factor != 1 else (1, 2, 5)
        for size in sizes:
            torch.testing.assert_close(whole(x[:size]), dead(x[:size]))
        if factor == 2 and count == 1:
            with pytest.raises(UsageError):
                whole(x)

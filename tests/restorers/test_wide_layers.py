"""Wide layers are read a part at a time: the same numbers, and never the whole in double."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import bequest
from bequest.execution import spans
from bequest.graph.units import Unit
from bequest.restorers.weight_space import Delivery, WeightSpace, nothing
from bequest.surgery import masked
from tests.networks import NETWORKS, Decoder, Flattened, GatedMLP, Plain, Signal, randomise

CASES = {
    "convolutions": (Plain, torch.contiguous_format),
    "channels last": (Plain, torch.channels_last),
    "flattened": (Flattened, torch.contiguous_format),
    "transposed": (Decoder, torch.contiguous_format),
    "gated": (GatedMLP, torch.contiguous_format),
    "1-D": (Signal, torch.contiguous_format),
}


@pytest.mark.parametrize("restorer", ["none", "lbyl", "merge", "moments", "sum", "coreset"])
@pytest.mark.parametrize("criterion", ["l1", "l2"])
@pytest.mark.parametrize(("network", "form"), CASES.values(), ids=CASES.keys())
def test_parts_make_the_same_network(network, form, criterion, restorer, monkeypatch):
    model, x = randomise(network()).to(memory_format=form), torch.zeros(NETWORKS[network])
    call = {"criterion": criterion, "restorer": restorer, "round_to": 1}
    whole = bequest.prune(model, x, 0.4, **call)
    monkeypatch.setattr(spans, "AT_ONCE", 200)
    monkeypatch.setattr(masked, "WIDE", 0)
    parts = bequest.prune(model, x, 0.4, **call)
    assert whole.report.notes == parts.report.notes
    assert any(group.removed for group in whole.plan.groups)
    assert whole.plan.surgery == parts.plan.surgery
    for one, other in zip(whole.plan.groups, parts.plan.groups, strict=True):
        assert one.removed == other.removed
        assert (one.reconstruction_error is None) == (other.reconstruction_error is None)
        if one.reconstruction_error is not None:
            assert one.reconstruction_error == pytest.approx(other.reconstruction_error, abs=1e-9)
    found = parts.model.state_dict()
    for name, tensor in whole.model.state_dict().items():
        assert found[name].stride() == tensor.stride()
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


class Wide(nn.Module):
    """A layer of 400,000 weights between two small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 40, 3)
        self.b = nn.Linear(40 * 36, 300)
        self.c = nn.Linear(300, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(self.a(x)).flatten(1))))


class Doubles(TorchDispatchMode):
    """The largest tensor in double precision that anything made, in bytes."""

    largest = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **kwargs or {})
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, Tensor) and one.dtype == torch.float64:
                self.largest = max(self.largest, one.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("restorer", ["none", "lbyl"])
def test_no_wide_weight_is_held_in_double_precision(restorer, monkeypatch):
    monkeypatch.setattr(spans, "AT_ONCE", 2**16)
    model = Wide().eval()
    with Doubles() as doubles:
        bequest.prune(model, torch.zeros(1, 1, 8, 8), 0.5, criterion="l2", restorer=restorer)
    # The Gram of the 150 filters that stay, and what belongs to it, take 180 kB each.
    assert 0 < doubles.largest < model.b.weight.numel() * 8 / 10


def test_a_wide_layer_is_still_compared_with_what_is_planned(monkeypatch):
    monkeypatch.setattr(spans, "AT_ONCE", 2**12)
    monkeypatch.setattr(masked, "WIDE", 2**10)

    class Scaled(Wide):
        def forward(self, x: Tensor) -> Tensor:
            hidden = F.relu(self.b(F.relu(self.a(x)).flatten(1)))
            return self.c(hidden) * hidden.shape[1]  # a number that follows the width

    model, x = Scaled().eval(), torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        model.b.weight[:150] = 0
        model.b.bias[:150] = 0
    pruned = bequest.prune(model, x, {"b": 0.5}, restorer="none", round_to=1)
    assert pruned.plan.form == "program"  # its class would multiply by 150
    with torch.no_grad():
        torch.testing.assert_close(pruned.model(x), model(x), rtol=1e-4, atol=1e-3)


class Writing(WeightSpace):
    """A method of somebody's own that works in place on what it is given."""

    name: ClassVar[str] = "writing"

    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        (consumer,) = unit.consumers
        weight, bias, norm = unit.producer.weight, unit.producer.bias, unit.producer.norm
        for one in (weight, consumer.weight, bias, *([] if norm is None else [norm.gamma])):
            if one is not None:
                one.zero_()
        return Delivery(nothing(unit, kept, removed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("network", [Plain, Flattened])
def test_what_a_method_writes_to_is_not_the_caller_s(network, dtype):
    model = randomise(network()).to(dtype)
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(NETWORKS[network], dtype=dtype)
    bequest.prune(model, x, 0.5, criterion="l2", restorer=Writing(), round_to=1)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Square(nn.Module):
    """A weight that is multiplied with itself, or a bias that isn't a number per output."""

    def __init__(self, bias: tuple[int, ...] | None) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 24), nn.Linear(24, 16)
        self.weight = nn.Parameter(torch.randn(16, 16) / 4)
        self.bias = None if bias is None else nn.Parameter(torch.full(bias, 0.1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(F.relu(self.a(x)))
        if self.bias is None:
            return h @ F.linear(self.weight, self.weight)
        return F.linear(h, self.weight, self.bias)


@pytest.mark.parametrize("bias", [None, (), (1,), (16,)])
def test_layers_that_do_not_fall_into_outputs_run_whole(bias, monkeypatch):
    monkeypatch.setattr(spans, "AT_ONCE", 200)
    monkeypatch.setattr(masked, "WIDE", 0)
    pruned = bequest.prune(Square(bias).eval(), torch.randn(3, 6), 0.5, restorer="lbyl", round_to=1)
    assert any(group.removed for group in pruned.plan.groups)
    assert not any("not compared" in note for note in pruned.report.notes)

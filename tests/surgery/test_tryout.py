"""A pruned network is run before it is handed back, and must compute what its plan says."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest.errors import ModelError, NothingPrunedWarning, UsageError
from bequest.execution.copies import private_copy
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.rules.base import _RULES
from bequest.graph.trace import named_tensors, trace
from bequest.surgery import masked, operation
from bequest.surgery.cut import Cut
from bequest.surgery.cuts import plan_surgery
from bequest.surgery.tryout import Finding, Trial
from tests.networks import randomise

DEAD = 24


class Between(nn.Module):
    """Two layers with a function of the hidden values between them; the first channels are dead."""

    def __init__(self, between, conv: bool = False) -> None:
        super().__init__()
        self.between = between
        self.a = nn.Conv2d(3, 48, 3) if conv else nn.Linear(6, 48)
        self.b = nn.Conv2d(48, 5, 1) if conv else nn.Linear(48, 5)
        with torch.no_grad():
            self.a.weight[:DEAD] = 0
            self.a.bias[:DEAD] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.between(F.relu(self.a(x)), self)


WIDTHS = {
    "root of a size": lambda h, m: m.b(h / math.sqrt(h.shape[-1])),
    "NumPy": lambda h, m: m.b(h * float(np.log(h.shape[-1]))),
    "attribute of a layer": lambda h, m: m.b(h) * m.b.in_features**-0.5,
    "length of a weight": lambda h, m: m.b(h) / len(m.a.weight),
    "number of elements": lambda h, m: m.b(h) * m.b.weight.numel(),
    "a tensor of one number": lambda h, m: m.b(h) * torch.tensor(1.0 / h.shape[-1]),
    "a filled tensor": lambda h, m: m.b(h * torch.full_like(h, 1 / h.shape[-1])),
    "an exponent": lambda h, m: m.b(h).abs() ** (h.shape[-1] / 48),
    "a bound": lambda h, m: m.b(h.clamp(max=h.shape[-1] / 480)),
    "a factor of a product": lambda h, m: torch.addmm(
        m.b.bias, h, m.b.weight.t(), alpha=1 / h.shape[1]
    ),
    "a sum of positions": lambda h, m: m.b(h) + torch.arange(h.shape[-1], device=h.device).sum(),
    "a branch": lambda h, m: m.b(h * 2 if h.shape[-1] > 30 else h),
    "other operators": lambda h, m: m.b(h.tanh() if h.shape[-1] > 30 else h.sigmoid()),
}


@pytest.mark.parametrize("restorer", ["none", "lbyl"])
@pytest.mark.parametrize("between", WIDTHS.values(), ids=WIDTHS.keys())
def test_numbers_that_follow_a_width_keep_their_dense_value(between, restorer):
    model, x = Between(between).eval(), torch.randn(8, 6)
    pruned = bequest.prune(model, x[:1], 0.5, restorer=restorer, round_to=1)
    assert pruned.plan.groups[0].removed == tuple(range(DEAD))
    assert pruned.plan.form == "program"
    with torch.no_grad():
        torch.testing.assert_close(pruned.model(x), model(x))


def test_a_number_of_groups_that_follows_the_width_keeps_its_dense_value():
    model = Between(lambda h, m: m.b(F.group_norm(h, h.shape[1] // 4)), conv=True).eval()
    x = torch.randn(2, 3, 6, 6)
    pruned = bequest.prune(model, x, 0.5, restorer="none")
    wanted = model.b.weight[:, [i for i in range(48) if i not in pruned.plan.groups[0].removed]]
    with torch.no_grad():
        kept = F.relu(model.a(x))[:, ~np.isin(np.arange(48), pruned.plan.groups[0].removed)]
        expected = F.conv2d(F.group_norm(kept, 12), wanted, model.b.bias)
        torch.testing.assert_close(pruned.model(x), expected)


def test_the_number_and_its_operator_are_named_where_no_program_can_be_written():
    class Counting(Between):
        def __init__(self) -> None:
            super().__init__(lambda h, m: m.b(h / h.shape[-1]))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1  # running it changes a buffer, which no program does
            return super().forward(x)

    with pytest.warns(NothingPrunedWarning):
        pruned = bequest.prune(Counting().eval(), torch.zeros(1, 6), 0.5, restorer="none")
    assert not pruned.plan.groups
    (refusal,) = pruned.plan.refused
    assert "div computes with other = 24 where the dense network has 48" in refusal.reason


@pytest.mark.parametrize("norm", ["layer", "group", "rms"])
def test_norms_over_channels_take_the_statistics_of_those_that_stay(norm):
    layer = {"layer": nn.LayerNorm(16), "group": nn.GroupNorm(2, 16), "rms": nn.RMSNorm(16)}[norm]
    model = nn.Sequential(nn.Linear(6, 16), layer, nn.Linear(16, 4)).eval()
    nn.init.uniform_(layer.weight, 0.5, 2)
    pruned = bequest.prune(model, torch.zeros(1, 6), 0.5, restorer="none", round_to=1)
    (plan,) = pruned.plan.groups
    assert any("statistics are those of the channels that stay" in note for note in plan.notes)
    assert not pruned.report.notes


class Heads(nn.Module):
    """A grouped convolution whose outputs are read as heads, each of which spans whole groups."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Conv2d(3, 48, 1)
        self.g = nn.Conv2d(48, 48, 1, groups=6)
        self.p = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.g(F.relu(self.q(x))).reshape(len(x), 2, 24, -1).transpose(-1, -2)
        q, k, v = y.chunk(3, -1)
        mixed = F.relu(q) @ (F.relu(k).transpose(-1, -2) @ v)
        return self.p(mixed.transpose(-1, -2).reshape(len(x), 16, *x.shape[2:]))


def test_heads_that_span_whole_groups_of_a_convolution_are_refused_by_name():
    pruned = bequest.prune(Heads(), torch.zeros(2, 3, 4, 4), 0.5, groups="all", restorer="none")
    reasons = {one.group: one.reason for one in pruned.plan.refused}
    assert "several of the blocks" in reasons["g"]
    assert "conv2d in 'g'" in reasons["g"]
    assert all(one.name != "g" for one in pruned.plan.groups)


@pytest.fixture
def wrong_rule(monkeypatch):
    """A rule that says of reversed channels that they are where they were."""

    def blind(step):
        return step.layout(step.operands()[0])

    monkeypatch.setitem(_RULES, "flip", (blind, "linear"))


class Reversed(nn.Module):
    """A layer whose channels are read in the reverse order, and another one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Linear(6, 16), nn.Linear(16, 20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(F.relu(self.b(self.a(x).flip(-1))))


@pytest.mark.usefixtures("wrong_rule")
@pytest.mark.parametrize("restorer", ["none", "lbyl"])
def test_what_a_wrong_rule_would_do_is_found_and_left_out(restorer):
    pruned = bequest.prune(Reversed(), torch.zeros(1, 6), 0.5, restorer=restorer, round_to=1)
    assert {one.name for one in pruned.plan.groups} == {"b"}
    reasons = {one.group: one.reason for one in pruned.plan.refused}
    assert "computes something else: its results differ by" in reasons["a"]


@pytest.mark.usefixtures("wrong_rule")
def test_robust_pruning_leaves_it_out_too():
    pruned = bequest.robust.prune(Reversed(), torch.zeros(1, 6), ratio=0.5, step=0.25)
    assert {one.name for one in pruned.plan.groups} == {"b"}


def test_a_network_that_draws_lots_is_handed_back_with_a_note():
    model = Between(lambda h, m: m.b(h * (1 + torch.rand_like(h)))).eval()
    state = torch.random.get_rng_state()
    pruned = bequest.prune(model, torch.zeros(1, 6), 0.5, restorer="none")
    assert pruned.plan.groups
    assert any("draws random numbers" in note for note in pruned.report.notes)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rounding_is_no_difference_in_any_precision(dtype):
    layers = [nn.Sequential(nn.Linear(32, 32), nn.ReLU()) for _ in range(12)]
    model = nn.Sequential(*layers, nn.Linear(32, 3)).to(dtype).eval()
    pruned = bequest.prune(model, torch.zeros(2, 32, dtype=dtype), 0.4, restorer="none")
    assert len(pruned.plan.groups) == 12
    assert not pruned.report.notes


def _trial(model: nn.Module, x: Tensor) -> Trial:
    dense = private_copy(model)
    return Trial.over(dense, group(read(trace(dense, x))), x)


def test_one_wrong_weight_is_found():
    model, x = Between(lambda h, m: m.b(h)).eval(), torch.zeros(4, 6)
    trial = _trial(model, x)
    cut = Cut.of(trial.channels)
    cut.leaving[trial.channels.groups[0].channels[:DEAD]] = True
    surgery = plan_surgery(cut, model)
    pruned = private_copy(model)
    operation.apply(pruned, surgery)
    assert trial.of(cut, surgery, pruned).problem is None
    with torch.no_grad():
        pruned.b.weight[0] = pruned.b.weight[0].roll(1)
    # Its own weights are put back: what a restorer has written is no difference.
    assert trial.of(cut, surgery, pruned).problem is None
    pruned.between = lambda h, m: m.b(h.roll(1, -1))
    assert "differ by" in trial.of(cut, surgery, pruned).problem
    pruned.between = lambda h, m: m.b(h)[:, :3]
    assert "shape" in trial.of(cut, surgery, pruned).problem
    pruned.between = lambda h, m: m.b(h[:, :3])
    assert "does not run" in trial.of(cut, surgery, pruned).problem


@pytest.mark.parametrize("blocks", [1, 3])
def test_putting_back_is_the_inverse_of_cutting(blocks):
    weight = torch.randn(6, 4, 3)
    keep = (0, 3) if blocks == 1 else (0, 1, 0, 3, 2, 3)
    cuts = [operation.TensorCut("w", 1, keep, blocks), operation.TensorCut("w", 0, (1, 2, 5))]
    module = nn.Module()
    module.w = nn.Parameter(weight.clone())
    operation.apply(module, operation.Surgery(tuple(cuts), (), ()))
    again = masked.put_back(weight, 2 * module.w.detach(), cuts)
    changed = again != weight
    assert torch.equal(again[changed], 2 * weight[changed])
    assert int(changed.sum()) == module.w.numel()


class Watched(nn.Module):
    """Counts its calls, in an attribute and in a buffer, and keeps what it computed last."""

    def __init__(self) -> None:
        super().__init__()
        self.body = randomise(
            nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3))
        )
        self.calls = 0
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.body(x)
        return self.last


@pytest.mark.parametrize("target", [None, "macs:0.6"])
@pytest.mark.parametrize("restorer", ["lbyl", bequest.restorers.Regression(images=16)])
def test_the_callers_model_is_never_run(target, restorer):
    model = Watched().train()
    model(torch.randn(2, 3, 9, 9))  # leaves a tensor with a gradient in an attribute
    before = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
    calls, versions = model.calls, [p._version for p in model.parameters()]
    np.random.seed(3)  # noqa: NPY002
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    bequest.prune(model, torch.zeros(1, 3, 9, 9), restorer=restorer, target=target)
    assert model.calls == calls
    assert all(module.training for module in model.modules())
    assert [p._version for p in model.parameters()] == versions
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name, tensor in named_tensors(model).items():
        assert torch.equal(tensor, before[name])
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_three_threads_get_three_equal_networks():
    model = Watched()
    found: list[dict[str, Tensor] | Exception] = []

    def work() -> None:
        try:
            restorer = bequest.restorers.Regression(images=16)
            pruned = bequest.prune(model, torch.zeros(1, 3, 9, 9), 0.5, restorer=restorer)
            found.append(pruned.model.state_dict())
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, *others = found
    assert len(others) == 2
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_where_the_restored_network_alone_is_wrong_nothing_is_handed_back(monkeypatch):
    monkeypatch.setattr(Trial, "of", lambda *_: Finding(problem="made up"))
    monkeypatch.setattr("bequest.restorers.restoration.Restoration._plain_problem", lambda *_: None)
    model = Between(lambda h, m: m.b(h)).eval()
    with pytest.raises(ModelError, match="what is planned: made up; prune fewer"):
        bequest.prune(model, torch.zeros(1, 6), 0.5, restorer="lbyl")


def test_results_that_do_not_vary_are_measured_by_their_size():
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 3)
            self.o = nn.Linear(16, 4)

        def forward(self, x):  # in single precision wherever it runs
            h = torch.relu(self.b(torch.relu(self.a(x.float() / 255))))
            return self.o(h.mean((2, 3)))

    for seed in range(3):
        torch.manual_seed(seed)
        example = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        pruned = bequest.prune(Pixels().eval(), example, 0.5, progress=False)
        assert [one.name for one in pruned.plan.groups] == ["a", "b"]


@pytest.mark.usefixtures("wrong_rule")
@pytest.mark.parametrize("batch", [1, 4])
def test_a_result_is_measured_by_how_it_varies(batch):
    model = Reversed()
    with torch.no_grad():
        model.o.weight.mul_(1e-6)  # the output's biases are nearly all that it says
    pruned = bequest.prune(model.eval(), torch.zeros(batch, 6), 0.5, restorer="none", round_to=1)
    assert {one.name for one in pruned.plan.groups} == {"b"}


@pytest.mark.parametrize("restorer", ["none", bequest.restorers.Regression(images=16)])
@pytest.mark.parametrize("batch", [1, 3])
def test_networks_in_channels_last_are_compared_too(batch, restorer):
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 9, 5)).eval()
    model = model.to(memory_format=torch.channels_last)
    pruned = bequest.prune(model, torch.zeros(batch, 3, 7, 7), {"0": 0.5}, restorer=restorer)
    assert len(pruned.plan.groups) == 1
    assert not pruned.report.notes  # the last convolution stays whole, and with it its format


class InHalf(nn.Module):
    """Its code asks for bfloat16 by itself, where rounding hides what differs."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        x = torch.relu(self.a(x)).to(torch.bfloat16)
        if self.how == "cast":
            return self.c(torch.relu(self.b(x.float())).half().float())
        return self.c(torch.relu(self.b(x)))


@pytest.mark.parametrize("restorer", ["none", "lbyl", "regression"])
@pytest.mark.parametrize("how", ["autocast", "cast"])
def test_code_that_asks_for_half_precision_itself(how, restorer, tmp_path):
    torch.manual_seed(0)
    model, x = InHalf(how).eval(), torch.randn(16, 8)
    pruned = bequest.prune(model, x, 0.5, restorer=restorer, progress=False)
    assert [len(one.removed) for one in pruned.plan.groups] == [16, 16]
    assert not pruned.report.notes
    pruned.save(tmp_path / "out")
    loaded = bequest.load(tmp_path / "out", InHalf(how).eval())
    assert torch.equal(loaded(x), pruned.model(x))


@pytest.mark.parametrize("restorer", ["none", "regression"])
def test_a_network_that_does_not_run_by_itself_is_named(restorer):
    with pytest.raises(UsageError, match="InHalf does not run on the example inputs"):
        bequest.prune(InHalf("mixed").eval(), torch.zeros(2, 8), 0.5, restorer=restorer)


def test_cuts_are_done_in_order_by_whatever_name_a_tensor_is_called():
    module = nn.Module()
    module.w = nn.Parameter(torch.arange(36.0).view(6, 6))
    module.other = module.w
    operation.narrow(
        module,
        [
            operation.TensorCut("other", 1, (0, 4)),
            operation.TensorCut("w", 0, (1, 2, 5)),
            operation.TensorCut("other", 0, (2,)),
        ],
    )
    assert module.w is module.other
    assert module.w.tolist() == [[30.0, 34.0]]


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_layer_without_outputs_is_no_obstacle():
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.none = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 0)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.a(x))
            return torch.cat([self.b(h), self.none(h)], 1)

    model, x = Empty().eval(), torch.randn(4, 6)
    with torch.no_grad():
        model.a.weight[::2], model.a.bias[::2] = 0, 0
        pruned = bequest.prune(model, x, 0.5, restorer="lbyl", round_to=1)
        assert pruned.plan.groups[0].removed == (0, 2, 4, 6)
        torch.testing.assert_close(pruned.model(x), model(x))

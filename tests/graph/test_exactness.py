"""What the algebra says is exact comes out exact, on every odd network."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bequest
from bequest.graph.groups import Channels, Group, group
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from tests.networks import NETWORKS, GatedMLP, GroupedBottleneck, LiteralSlice, Norms, randomise

SILENT = {network: "all" for network in NETWORKS if network is not Norms} | {GatedMLP: "inner"}
"""Networks with the groups in which a dead channel leaves no trace: not those that group and layer
norms read, whose statistics change with the number of channels."""


def flat(output) -> Tensor:
    values = output.values() if isinstance(output, dict) else [output]
    return torch.cat([value.flatten() for value in values])


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return flat(model(x))


def prepared(network: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    return randomise(network()).double(), torch.randn(NETWORKS[network], dtype=torch.float64)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_ratio_zero_is_the_identity(network):
    model, x = prepared(network)
    pruned = bequest.prune(model, x, ratio=0, groups="all")
    assert not pruned.plan.groups
    assert not pruned.plan.surgery.cuts
    assert torch.equal(outputs(pruned.model, x), outputs(model, x))


@pytest.mark.parametrize("restorer", ["none", "lbyl"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_the_pruned_network_runs_trains_and_leaves_the_original_alone(network, restorer):
    model, x = prepared(network)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned = bequest.prune(model, x, 0.5, groups="all", restorer=restorer, round_to=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    if network is not LiteralSlice:
        assert pruned.report.after.params < pruned.report.before.params
    doubled = torch.cat([x, x])
    assert outputs(pruned.model, doubled).shape == outputs(model, doubled).shape
    flat(pruned.model.train()(doubled)).square().mean().backward()
    gradients = [parameter.grad for parameter in pruned.model.parameters()]
    assert all(gradient is not None for gradient in gradients)
    torch.optim.SGD(pruned.model.parameters(), lr=0.1).step()


def silence(model: nn.Module, channels: Channels, member: Group, removed: np.ndarray) -> None:
    """Zeroes the rows, biases, scales and shifts of some channels, wherever they are written."""
    tensors = named_tensors(model)
    gone = set(member.channels[removed].tolist())
    for (name, dim), labels in channels.reading.ledger.slots.items():
        written = any(w.weight == name and w.dim == dim for w in channels.reading.writes)
        read_from = any(r.weight == name and r.dim == dim for r in channels.reading.reads)
        at = [i for i, c in enumerate(channels.channel_of[labels]) if int(c) in gone]
        if at and (written or not read_from) and "running" not in name:
            tensors[name].data.index_fill_(dim, torch.tensor(at), 0.0)


@pytest.mark.parametrize("network", SILENT, ids=lambda n: n.__name__)
def test_dead_channels_leave_exactly(network):
    model, x = prepared(network)
    channels = group(read(trace(model, x)))
    chosen = 0
    for member in channels.groups:
        if member.is_output or member.free == 0:
            continue
        if SILENT[network] == "inner" and member.kind != "inner":
            continue
        blocks = np.zeros(member.size, int) if member.blocks is None else member.blocks
        for block in range(int(blocks.max()) + 1):
            free = np.flatnonzero((blocks == block) & ~member.fixed)
            silence(model, channels, member, free[1::2])
            chosen += len(free[1::2])
    assert chosen or network is LiteralSlice
    before = outputs(model, x)
    pruned = bequest.prune(
        model, x, 0.5, groups=SILENT[network], criterion="l1", restorer="none", round_to=1
    )
    assert network is LiteralSlice or pruned.plan.groups
    torch.testing.assert_close(outputs(pruned.model, x), before, rtol=0, atol=1e-9)


def plant(model: nn.Module, layer: str, norm: str | None, pairs: list[tuple[int, int, float]]):
    """Makes filter j the positive multiple s of filter k, before and behind its norm."""
    conv = model.get_submodule(layer)
    with torch.no_grad():
        for j, k, s in pairs:
            conv.weight[j] = conv.weight[k] * (s if norm is None else 0.01)
            if conv.bias is not None:
                conv.bias[j] = conv.bias[k] * (s if norm is None else 0.01)
            if norm is not None:
                bn = model.get_submodule(norm)
                bn.running_mean[j] = bn.running_mean[k] * 0.01
                bn.running_var[j] = (bn.running_var[k] + bn.eps) * 1e-4 - bn.eps
                bn.weight[j], bn.bias[j] = bn.weight[k] * s, bn.bias[k] * s


@pytest.mark.parametrize("restorer", ["lbyl", "merge"])
@pytest.mark.parametrize(
    ("network", "layer", "norm"),
    [
        ("Plain", "conv1", "norm1"),
        ("Plain", "conv2", None),
        ("Flattened", "conv", None),
        ("Flattened", "hidden", None),
        ("SplitConcat", "left", None),
        ("Decoder", "deep", None),
        ("Signal", "conv1", "norm"),
        ("Volume", "conv1", "norm"),
        ("LiteralView", "fc2", None),
    ],
)
def test_duplicates_and_positive_multiples_leave_exactly(network, layer, norm, restorer):
    kind = next(n for n in NETWORKS if n.__name__ == network)
    model, x = prepared(kind)
    size = model.get_submodule(layer).weight.shape[0]
    pairs = [(j, size - 1 - j, 0.01 if norm is None else 0.7) for j in range(size // 2)]
    plant(model, layer, norm, pairs)
    pruned = bequest.prune(
        model, x, {layer: 0.5}, criterion="l1", restorer=restorer, round_to=1, groups="all"
    )
    (only,) = pruned.plan.groups
    assert only.removed == tuple(sorted(j for j, _, _ in pairs))
    assert only.restored_by == restorer
    assert only.reconstruction_error == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(outputs(pruned.model, x), outputs(model, x), rtol=0, atol=1e-6)


class Constant(nn.Module):
    """conv → norm → sigmoid → conv with or without zero padding."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 4, 3, padding=padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.norm(self.conv(x))))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kept_constant", [False, True])
def test_constant_channels(padding, kept_constant):
    """Exact in a bias without padding, and through a kept constant channel with padding."""
    model = randomise(Constant(padding)).double()
    with torch.no_grad():
        dead = [0, 1, 2, 7] if kept_constant else [0, 1, 2]
        model.norm.weight[dead] = 0
        model.conv.weight[dead[:3]] *= 1e-3
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    pruned = bequest.prune(model, x, {"conv": 3 / 8}, criterion="l1", restorer="lbyl", round_to=1)
    (only,) = pruned.plan.groups
    assert only.removed == (0, 1, 2)
    if padding == 0 or kept_constant:
        torch.testing.assert_close(outputs(pruned.model, x), outputs(model, x), rtol=0, atol=1e-9)
    else:
        assert any("border" in note for note in only.notes)
        inner = slice(1, -1)
        torch.testing.assert_close(
            pruned.model(x)[..., inner, inner], model(x)[..., inner, inner], rtol=0, atol=1e-9
        )


class Linear(nn.Module):
    """No activation: linearly dependent channels are exact."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.head = nn.Conv2d(12, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x))


def test_linearly_dependent_channels_leave_exactly_where_the_activation_is_the_identity():
    model = Linear().double()
    with torch.no_grad():
        mix = 0.01 * torch.randn(4, 8, dtype=torch.float64)
        model.conv.weight[:4] = torch.einsum("rk,kihw->rihw", mix, model.conv.weight[4:])
        model.conv.bias[:4] = mix @ model.conv.bias[4:]
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    pruned = bequest.prune(model, x, {"conv": 1 / 3}, criterion="l1", restorer="lbyl", round_to=1)
    assert pruned.plan.groups[0].removed == (0, 1, 2, 3)
    torch.testing.assert_close(outputs(pruned.model, x), outputs(model, x), rtol=0, atol=1e-5)


def test_mode_dtype_and_random_state_stay():
    model, x = prepared(next(iter(NETWORKS)))
    model = copy.deepcopy(model).train().half()
    state = torch.get_rng_state()
    pruned = bequest.prune(model, x.half(), 0.5, criterion="random")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert pruned.model.training
    assert {p.dtype for p in pruned.model.parameters()} == {torch.float16}
    assert pruned.plan.form == "module"


@pytest.mark.parametrize("restorer", ["lbyl", "merge", "sum"])
def test_equal_filters_that_read_different_inputs_are_no_copies(restorer):
    model, x = prepared(GroupedBottleneck)
    eight = torch.arange(0, 32, 8)  # a filter of each of the four groups
    with torch.no_grad():
        model.conv2.weight[eight] = model.conv2.weight[:1].clone()
        model.conv2.bias[eight] = model.conv2.bias[:1].clone()
    pruned = bequest.prune(model, x, {"conv2": 0.5}, restorer=restorer, round_to=1, groups="all")
    (only,) = pruned.plan.groups
    assert only.restored_by == restorer
    assert only.reconstruction_error > 0.1  # they are told by what they say, which differs


@pytest.mark.parametrize("restorer", ["lbyl", "merge"])
def test_copies_among_filters_of_a_group_leave_exactly(restorer):
    model, x = prepared(GroupedBottleneck)
    with torch.no_grad():
        for tensor in (model.conv2.weight, model.conv2.bias):
            pairs = tensor.view(16, 2, *tensor.shape[1:])
            pairs[:, 0] = 0.5 * pairs[:, 1]
    pruned = bequest.prune(
        *(model, x, {"conv2": 0.5}), criterion="l1", restorer=restorer, round_to=1, groups="all"
    )
    assert pruned.plan.groups[0].restored_by == restorer
    torch.testing.assert_close(pruned.model(x), model(x), rtol=1e-4, atol=1e-5)

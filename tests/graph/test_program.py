"""A program computes what the network computes, without its class, at any batch size."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest.errors import ModelError
from bequest.graph.emission import check_emittable, emit
from bequest.graph.groups import group
from bequest.graph.program import Program
from bequest.graph.rules import read
from bequest.graph.trace import trace
from tests.graph.test_exactness import flat, outputs, prepared
from tests.networks import NETWORKS, LiteralAttention, LiteralSlice, UnequalSplit, UnknownOperator

KNOWN = [network for network in NETWORKS if network is not UnknownOperator]


def unpruned(model: nn.Module, x: Tensor) -> Program:
    channels = group(read(trace(model, x)))
    leaving = np.zeros(int(channels.channel_of.max()) + 1, bool)
    return emit(model, x, channels, leaving, copy.deepcopy(model))


@pytest.mark.parametrize("network", KNOWN, ids=lambda n: n.__name__)
def test_the_program_of_a_whole_network_is_the_network(network):
    model, x = prepared(network)
    program = unpruned(model, x)
    assert program.any_batch
    for batch in (x, x[:1], torch.cat([x, x.flip(0), x])):
        torch.testing.assert_close(outputs(program, batch), outputs(model, batch))


@pytest.mark.parametrize("network", KNOWN, ids=lambda n: n.__name__)
def test_class_and_program_agree_on_what_is_left(network):
    """Two ways from one plan: the class's code at new widths, and the trace at new widths."""
    model, x = prepared(network)
    channels = group(read(trace(model, x)))
    pruned = bequest.prune(model, x, 0.5, groups="all", restorer="none", round_to=1)
    gone = {one.name: one.removed for one in pruned.plan.groups}
    leaving = np.zeros(int(channels.channel_of.max()) + 1, bool)
    for member in channels.groups:
        leaving[member.channels[list(gone.get(member.name, ()))]] = True
    program = emit(model, x, channels, leaving, pruned.model)
    torch.testing.assert_close(outputs(program, x), outputs(pruned.model, x))


@pytest.mark.parametrize("network", [LiteralSlice, LiteralAttention, UnequalSplit])
def test_sizes_in_the_code_become_a_program(network):
    model, x = prepared(network)
    pruned = bequest.prune(model, x, 0.5, round_to=1, restorer="none")
    assert pruned.plan.form == "program"
    assert pruned.program is pruned.model
    assert not pruned.plan.refused
    kept = {one.name: one.kept for one in pruned.plan.groups}
    state = dict(pruned.model.named_parameters())
    for name, width in kept.items():
        tensor = state.get(f"{name}.weight", state.get(name))
        assert tensor is not None
        assert width in tensor.shape or tensor.shape[0] % width == 0
    assert set(state) == set(dict(model.named_parameters()))


class Held(nn.Module):
    """Results by name, from inputs by name, with a tensor that the code makes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 8)

    def forward(self, first: Tensor, second: Tensor | None = None) -> OrderedDict[str, object]:
        assert second is not None
        y = F.relu(self.layer(first)) + torch.arange(8).to(first.dtype)
        masked = y.masked_fill(second > 0, float("-inf"))
        return OrderedDict(hidden=y.view(-1, 2, 4), pair=(masked, [second]))


def test_names_of_inputs_and_results_stay():
    model = Held().double()
    inputs = {"first": torch.randn(2, 6).double(), "second": torch.randn(2, 8).double()}
    channels = group(read(trace(model, inputs)))
    leaving = np.zeros(int(channels.channel_of.max()) + 1, bool)
    program = emit(model, inputs, channels, leaving, model)
    expected, found = model(**inputs), program(**inputs)
    assert torch.equal(found.hidden, expected["hidden"])
    assert torch.equal(found["pair"][0], expected["pair"][0])
    assert torch.equal(program(inputs["first"], inputs["second"])["pair"][1][0], inputs["second"])


def test_a_bias_that_a_restorer_adds_reaches_the_program():
    model, x = prepared(LiteralSlice)
    model.left.bias = None
    with torch.no_grad():
        model.conv.weight[:4] = 0  # constant channels: they leave an offset
        model.conv.bias[:4] = 3.0
        model.conv.weight[16:20] = 0
        model.conv.bias[16:20] = 2.0
    pruned = bequest.prune(model, x, 8 / 32, criterion="l1", round_to=1)
    assert pruned.plan.form == "program"
    assert "left" in pruned.plan.surgery.biases or pruned.plan.groups[0].restored_by == "none"
    assert flat(pruned.model(x)).isfinite().all()


def test_an_operator_without_a_rule_is_refused_by_name():
    model, x = prepared(UnknownOperator)
    with pytest.raises(ModelError, match="fft"):
        check_emittable(group(read(trace(model, x))))

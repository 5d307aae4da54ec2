"""Operators of other libraries: refused by name until a rule is registered from outside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bequest
from bequest.graph.rules import base
from bequest.graph.rules.base import rule
from bequest.graph.rules.elementwise import activation
from tests.graph.masking import plainly
from tests.random_networks.oracle import masked


@torch.library.custom_op("bequest_tests::soften", mutates_args=())
def soften(x: Tensor) -> Tensor:
    return x.tanh() * 0.5


@soften.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Net(nn.Module):
    """Its width may stand in the code, which then makes a program of it."""

    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.first, self.last, self.literal = nn.Linear(5, 12), nn.Linear(12, 3), literal

    def forward(self, x: Tensor) -> Tensor:
        x = soften(self.first(x))
        return self.last(x.reshape(-1, 12) if self.literal else x)


def network(literal: bool) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Net(literal).double().eval(), torch.randn(4, 5).double()


@pytest.fixture
def registered(monkeypatch):
    """The registry with a rule more, for the time of a test."""
    monkeypatch.setattr(base, "_RULES", dict(base._RULES))
    rule("bequest_tests::soften", role="activation")(activation)


def test_without_a_rule_it_is_named():
    model, x = network(literal=False)
    with pytest.warns(bequest.errors.NothingPrunedWarning, match="without a rule .soften"):
        assert not plainly(model, x).plan.groups
    assert bequest.inspect(model, x).walls == ("soften",)


@pytest.mark.parametrize("literal", [False, True])
@torch.no_grad()
def test_with_a_rule_channels_leave(literal, registered, tmp_path):
    model, x = network(literal)
    pruned = plainly(model, x)
    assert [len(one.removed) for one in pruned.plan.groups] == [6]
    assert pruned.plan.form == ("program" if literal else "module")
    torch.testing.assert_close(pruned.model(x), masked(model, pruned.plan.surgery)(x))
    pruned.save(tmp_path / "out")
    assert torch.equal(bequest.load(tmp_path / "out", network(literal)[0])(x), pruned.model(x))


@torch.no_grad()
def test_a_saved_program_says_which_rule_is_missing(registered, monkeypatch, tmp_path):
    model, x = network(literal=True)
    plainly(model, x).save(tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(bequest.BequestError, match="soften"):
        bequest.load(tmp_path / "out", network(literal=True)[0])


def test_a_rule_is_filed_once(registered):
    with pytest.raises(ValueError, match="has a rule"):
        rule("bequest_tests::soften", role="join")(activation)

"""Products with a parameter are layers, however they are written: cut, restored, ranked as such."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bequest
from bequest.graph.trace import operator_of, trace

Product = Callable[[Tensor, Tensor, Tensor], Tensor]

OF_ROWS: dict[str, Product] = {  # weight (out, in)
    "x @ w.T": lambda x, w, b: x @ w.T + b,
    "x @ w.t()": lambda x, w, b: x @ w.t() + b,
    "x @ w.mT": lambda x, w, b: b + x @ w.mT,
    "permute": lambda x, w, b: torch.matmul(x, w.permute(1, 0)) + b,
    "einsum": lambda x, w, b: torch.einsum("...i,oi->...o", x, w) + b,
    "letters": lambda x, w, b: torch.einsum("btc,dc->btd", x, w) + b,
    "addmm": lambda x, w, b: torch.addmm(b, x.flatten(0, -2), w.t()).unflatten(0, x.shape[:-1]),
}
OF_COLUMNS: dict[str, Product] = {  # weight (in, out)
    "x @ w": lambda x, w, b: x @ w + b,
    "GPT-2": lambda x, w, b: torch.addmm(b, x.view(-1, x.size(-1)), w).view(*x.shape[:-1], -1),
}
WAYS = {**OF_ROWS, **OF_COLUMNS}


class Layer(nn.Module):
    def __init__(self, like: nn.Linear, how: str) -> None:
        super().__init__()
        weight = like.weight.detach()
        self.weight = nn.Parameter((weight.t() if how in OF_COLUMNS else weight).clone())
        self.bias = nn.Parameter(like.bias.detach().clone())
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return WAYS[self.how](x, self.weight, self.bias)


def network(how: str | None) -> nn.Sequential:
    """A perceptron of linear layers, or of the same written in another way."""
    torch.manual_seed(0)
    layers = [nn.Linear(8, 32), nn.Linear(32, 24), nn.Linear(24, 4)]
    made = [one if how is None else Layer(one, how) for one in layers]
    return nn.Sequential(made[0], nn.GELU(), made[1], nn.GELU(), made[2]).eval()


def inputs(rows: int = 1) -> Tensor:
    return torch.randn(rows, 5, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("how", WAYS)
def test_each_way_is_traced_as_a_linear_layer(how):
    operators = [operator_of(node) for node in trace(network(how), inputs()).nodes]
    assert operators.count("linear") == 3
    assert not {"matmul", "addmm", "einsum", "add", "view"} & set(operators)


@pytest.mark.parametrize("restorer", ["none", "merge", "lbyl", "moments", "regression"])
@pytest.mark.parametrize("how", ["x @ w.T", "GPT-2"])
def test_the_same_is_pruned_and_restored(how, restorer):
    x = inputs(32)
    data = [inputs(64)] if restorer == "regression" else None
    options = {"restorer": restorer, "data": data, "progress": False}
    plain, other = (bequest.prune(network(h), inputs(), 0.5, **options) for h in (None, how))
    assert [g.removed for g in other.plan.groups] == [g.removed for g in plain.plan.groups]
    assert {group.restored_by for group in other.plan.groups} == {restorer}
    torch.testing.assert_close(other.model(x), plain.model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", WAYS)
def test_the_same_channels_are_ranked_and_refined(how):
    data = [inputs(64)]
    options = {"criterion": "obs", "restorer": bequest.restorers.Regression(refine=4)}
    plain, other = (
        bequest.prune(network(h), inputs(), 0.5, data=data, progress=False, **options)
        for h in (None, how)
    )
    assert [g.removed for g in other.plan.groups] == [g.removed for g in plain.plan.groups]
    x = inputs(16)
    torch.testing.assert_close(other.model(x), plain.model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("how", ["x @ w.T", "GPT-2"])
def test_a_target_prices_them_alike(how):
    data = [inputs(64)]
    plain, other = (
        bequest.prune(
            network(h),
            inputs(),
            target="macs:0.6",
            restorer="none",
            data=data,
            round_to=1,
            progress=False,
        )
        for h in (None, how)
    )
    assert [g.removed for g in other.plan.groups] == [g.removed for g in plain.plan.groups]


class Tied(nn.Module):
    """A decoder that is the encoder transposed: its weight serves twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(functional.linear(x, self.weight)) @ self.weight


def test_a_weight_that_serves_twice_is_cut_once():
    pruned = bequest.prune(Tied().eval(), torch.zeros(1, 8), 0.5, progress=False)
    (group,) = pruned.plan.groups
    assert group.kept == 8
    assert pruned.model.weight.shape == (8, 8)


class LowRank(nn.Module):
    """A weight that is a product of parameters is none of these layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Parameter(torch.randn(12, 3)), nn.Parameter(torch.randn(8, 3))
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(functional.linear(x, self.left @ self.right.T)))


def test_a_product_of_parameters_stays_one():
    operators = [operator_of(node) for node in trace(LowRank(), torch.zeros(1, 8)).nodes]
    assert "matmul" in operators
    bequest.prune(LowRank().eval(), torch.zeros(1, 8), 0.5, restorer="none", progress=False)

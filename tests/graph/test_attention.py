"""Heads of attention are units: what leaves with them, and what can't leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from tests.graph.test_exactness import outputs, prepared
from tests.networks import (
    FusedAttention,
    GroupedQueries,
    LiteralAttention,
    UnequalSplit,
    WindowAttention,
)


def groups_of(network: type[nn.Module]) -> dict[str, bequest.selection.inspection.GroupView]:
    model, x = prepared(network)
    return {view.name: view for view in bequest.inspect(model, x).groups}


@pytest.mark.parametrize(
    ("network", "name", "heads"),
    [
        (FusedAttention, "qkv", 4),
        (LiteralAttention, "query", 4),
        (GroupedQueries, "q_proj", 2),  # a head of keys leaves with the two that it serves
        (WindowAttention, "qkv", 4),
    ],
)
def test_heads_are_inner_groups(network, name, heads):
    view = groups_of(network)[name]
    assert (view.kind, view.size, view.prunable) == ("inner", heads, heads)


def test_rows_of_all_three_projections_and_columns_of_the_output_leave_with_a_head():
    model, x = prepared(GroupedQueries)
    pruned = bequest.prune(model, x, 0.5, restorer="none")
    (only,) = pruned.plan.groups
    (gone,) = only.removed
    left = 1 - gone
    for name, width in (("q_proj", 8), ("k_proj", 4), ("v_proj", 4)):
        rows = slice(left * width, (left + 1) * width)
        kept = pruned.model.get_submodule(name).weight
        assert torch.equal(kept, model.get_submodule(name).weight[rows])
    assert torch.equal(pruned.model.o_proj.weight, model.o_proj.weight[:, left * 8 : left * 8 + 8])


def test_a_number_of_heads_that_a_module_keeps_follows():
    model, x = prepared(FusedAttention)
    pruned = bequest.prune(model, x, {"qkv": 0.5}, restorer="none")
    assert pruned.plan.form == "module"
    assert isinstance(pruned.model, FusedAttention)
    assert (pruned.model.num_heads, pruned.model.head_dim) == (2, 6)
    assert model.num_heads == 4


@pytest.mark.parametrize("network", [FusedAttention, LiteralAttention, WindowAttention])
def test_heads_without_values_leave_exactly(network):
    model, x = prepared(network)
    fused = network is not LiteralAttention
    layers = [model.qkv] * 3 if fused else [model.query, model.key, model.value]
    with torch.no_grad():
        for part, layer in enumerate(layers):
            for tensor in (layer.weight, layer.bias):
                rows = tensor.view(3, -1, *tensor.shape[1:])[part] if fused else tensor
                heads = rows.view(4, -1, *rows.shape[1:])
                heads[1::2] *= 0 if part == 2 else 1e-3
    name = "qkv" if fused else "query"
    pruned = bequest.prune(model, x, {name: 0.5}, restorer="none")
    assert pruned.plan.groups[0].removed == (1, 3)
    torch.testing.assert_close(outputs(pruned.model, x), outputs(model, x), rtol=0, atol=1e-12)


class Scaled(nn.Module):
    """One head: attention divides by the root of its width unless it is given a scale."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 8) for _ in range(3))
        self.out = nn.Linear(8, 3)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), scale=self.scale)
        return self.out(y)


@pytest.mark.parametrize(("scale", "prunable"), [(None, 0), (0.3, 8)])
def test_the_width_of_queries_stays_where_it_scales(scale, prunable):
    views = {v.name: v for v in bequest.inspect(Scaled(scale), torch.randn(1, 4, 6)).groups}
    assert views["q"].prunable == prunable
    assert views["q"].producers == ("q", "k")  # pairs: index i of queries with index i of keys
    assert views["v"].prunable == 8
    assert scale is not None or "scaled by" in views["q"].reasons[0]


class SilentMisfit(nn.Module):
    """Runs at any width, but takes other channels for heads than the plan does."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 48)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(len(x), 4, 3, 4, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        return self.out(y.transpose(1, 2).flatten(2))


def test_a_class_that_would_run_wrongly_is_not_used():
    model, x = SilentMisfit().double().eval(), torch.randn(2, 4, 6).double()
    pruned = bequest.prune(model, x, 0.5, restorer="none")
    assert pruned.plan.form == "program"
    gone = pruned.plan.groups[0].removed
    with torch.no_grad():
        for head in gone:
            model.out.weight[:, 4 * head : 4 * head + 4] = 0
    torch.testing.assert_close(outputs(pruned.model, x), outputs(model, x), rtol=0, atol=1e-12)


def test_a_part_that_is_split_off_keeps_a_channel():
    model, x = prepared(UnequalSplit)
    with torch.no_grad():
        model.conv.weight[:6] *= 1e-3  # by their norms, all of the smaller part would leave
        model.conv.bias[:6] *= 1e-3
    pruned = bequest.prune(model, x, {"conv": 0.5}, restorer="none", round_to=1)
    (only,) = pruned.plan.groups
    assert 0 < len(np.setdiff1d(np.arange(6), only.removed)) < 6
    assert outputs(pruned.model, x).isfinite().all()


@pytest.mark.parametrize("network", [FusedAttention, LiteralAttention, GroupedQueries])
def test_regression_reaches_the_output_projection(network):
    model, x = prepared(network)
    plain = bequest.prune(model, x, 0.5, restorer="none", round_to=1)
    fitted = bequest.prune(model, x, 0.5, restorer="regression", data=[torch.randn(64, 5, 12)] * 4)
    heads = fitted.plan.groups[0]
    assert heads.restored_by == "regression"
    y, probe = outputs(model, x), torch.randn(64, 5, 12, dtype=torch.float64)
    y = outputs(model, probe)
    errors = [(outputs(p.model, probe) - y).norm() / y.norm() for p in (plain, fitted)]
    assert errors[1] < 0.9 * errors[0]


class Remembering(nn.Module):
    """Keeps its scaled biases per device from the first forward pass on, as networks of timm do."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 3)
        self.offsets = nn.Parameter(torch.randn(16))
        self.cache = {}

    def forward(self, x):
        key = str(x.device)
        if key not in self.cache:
            self.cache[key] = 2 * self.offsets
        return self.down(torch.relu(self.up(x) + self.cache[key]))


def test_what_was_computed_at_the_dense_width_is_forgotten():
    model, x = Remembering().eval(), torch.randn(4, 6)
    with torch.no_grad():
        dense = model(x)
        pruned = bequest.prune(model, x, 0.5, restorer="none", round_to=1).model
        assert pruned(x).shape == dense.shape
        assert pruned.cache["cpu"].shape == (8,)
        torch.testing.assert_close(model(x), dense)
    assert model.cache["cpu"].shape == (16,)

"""``nn.MultiheadAttention`` and what is made of it: heads leave, the packed projection follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bequest
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace
from tests.architectures.planting import PlantedFirst

WIDTH, HEADS = 24, 4


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.o = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.a(x, x, x, need_weights=False)[0])


class WithWeights(Attends):
    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.a(x, x, x)[0])


class Crosses(Attends):
    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.a(x[:, :3], x, x, need_weights=False)[0])


class OtherWidths(Attends):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.MultiheadAttention(WIDTH, HEADS, kdim=WIDTH, vdim=8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.a(x, x, x[..., :8], need_weights=False)[0])


class Encodes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Linear(WIDTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True, norm_first=True)
        self.e = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.o = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.e(self.i(x)))


class Decodes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.i, self.j = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 32, batch_first=True)
        self.d = nn.TransformerDecoder(layer, 2)
        self.o = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(4)
        return self.o(self.d(self.i(x[:, :4]), self.j(x), tgt_mask=mask, tgt_is_causal=True))


class Block(nn.Module):
    """torchvision's EncoderBlock."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.self_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 48), nn.GELU(), nn.Linear(48, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Pictures(nn.Module):
    """torchvision's VisionTransformer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, WIDTH, 4, 4)
        self.class_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos_embedding = nn.Parameter(torch.randn(1, 5, WIDTH) * 0.02)
        self.layers = nn.Sequential(Block(), Block())
        self.ln, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = self.conv_proj(x).reshape(n, WIDTH, 4).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(n, -1, -1), x], dim=1) + self.pos_embedding
        return self.head(self.ln(self.layers(x))[:, 0])


ATTENTION: dict[str, Any] = {
    "self": Attends,
    "with weights": WithWeights,
    "cross": Crosses,
    "other widths": OtherWidths,
}
WHOLE: dict[str, Any] = {
    "encoder": Encodes,
    "decoder": Decodes,
    "pictures": Pictures,
}


def made(make) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = make().double().eval()
    shape = (2, 3, 8, 8) if make is Pictures else (2, 7, WIDTH)
    for one in model.modules():
        if isinstance(one, nn.MultiheadAttention) and one.in_proj_bias is not None:
            nn.init.normal_(one.in_proj_bias)
    return model, torch.randn(shape, dtype=torch.float64)


def output(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@torch.no_grad()
def without_values(model: nn.Module, heads: list[int]) -> None:
    """These heads of every attention say nothing."""
    for one in model.modules():
        if isinstance(one, nn.MultiheadAttention):
            packed = one.in_proj_weight is not None
            values = one.in_proj_weight[2 * WIDTH :] if packed else one.v_proj_weight
            for rows in (values, one.in_proj_bias[2 * WIDTH :]):
                rows.unflatten(0, (HEADS, -1))[heads] = 0


@pytest.mark.parametrize("name", [*ATTENTION, *WHOLE])
def test_dead_heads_leave_exactly_at_any_batch_and_come_back(name, tmp_path):
    make = {**ATTENTION, **WHOLE}[name]
    model, x = made(make)
    without_values(model, [0, 2])
    channels = group(read(trace(model, x)))
    heads = {one.name: (0, 2) for one in channels.groups if one.size == HEADS}
    assert len(heads) == sum(isinstance(one, nn.MultiheadAttention) for one in model.modules())
    layers = {one.layers[0]: 0.5 for one in channels.groups if one.name in heads}
    pruned = bequest.prune(
        model, x, layers, criterion=PlantedFirst(heads), restorer="none", progress=False
    )
    assert {one.name: one.removed for one in pruned.plan.groups} == heads
    torch.testing.assert_close(output(pruned.model, x), output(model, x), rtol=0, atol=1e-12)
    more = torch.cat([x, -x, x])
    wanted = output(model, more)
    torch.testing.assert_close(output(pruned.model, more), wanted, rtol=0, atol=1e-12)
    pruned.save(tmp_path / "out")
    loaded = bequest.load(tmp_path / "out", make().double().eval())
    assert torch.equal(output(loaded, x), output(pruned.model, x))


@pytest.mark.parametrize(("name", "restorer"), [("decoder", "lbyl"), ("pictures", "regression")])
def test_everything_can_leave_and_learns(name, restorer):
    model, x = made(WHOLE[name])
    pruned = bequest.prune(model, x, 0.5, groups="all", restorer=restorer, progress=False)
    assert pruned.report.after.params < 0.45 * pruned.report.before.params
    assert not pruned.report.refused
    pruned.model(x).square().mean().backward()
    assert all(one.grad is not None for one in pruned.model.parameters())


def test_a_packed_projection_loses_the_rows_of_whole_heads():
    model, x = made(Crosses)
    pruned = bequest.prune(model, x, {"a.in_proj_weight": 0.5}, restorer="none", progress=False)
    (only,) = pruned.plan.groups
    kept = [head for head in range(HEADS) if head not in only.removed]
    rows = model.a.in_proj_weight.unflatten(0, (3, HEADS, -1))[:, kept].flatten(0, 2)
    assert torch.equal(pruned.model.get_parameter("a.in_proj_weight"), rows)
    columns = model.a.out_proj.weight.unflatten(1, (HEADS, -1))[:, kept].flatten(1)
    assert torch.equal(pruned.model.get_parameter("a.out_proj.weight"), columns)

"""Operators called in ways that layers never call them: each cuts right, or holds what it must."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace
from tests.graph.masking import masked, plainly

WIDTH = 12
Call = Callable[[Tensor, "Odd"], Tensor]


class Odd(nn.Module):
    """A layer, an odd call with parameters at hand, and a layer that reads its result."""

    def __init__(self, call: Call, out: int = WIDTH) -> None:
        super().__init__()
        self.first = nn.Linear(6, WIDTH)
        self.head = nn.Linear(out, 3)
        self.square = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.vector = nn.Parameter(torch.randn(WIDTH))
        self.rows = nn.Parameter(torch.randn(5, WIDTH))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call(self.first(x), self))


def heads(h: Tensor, count: int) -> Tensor:
    """(5, 12) as one sample of (heads, 5 tokens, width)."""
    return h.view(5, count, -1).transpose(0, 1)[None]


def joined(y: Tensor) -> Tensor:
    return y[0].transpose(0, 1).flatten(1)


def by_shared_keys(h: Tensor, m: Odd) -> Tensor:
    keys = heads(torch.linspace(-1, 1, 30).to(h).view(5, 6), 2)
    keys = torch.cat([keys, keys], -1)[..., :3]
    return joined(F.scaled_dot_product_attention(heads(h, 4), keys, keys, enable_gqa=True))


def channels_as_tokens(h: Tensor, m: Odd) -> Tensor:
    return F.scaled_dot_product_attention(h.T[None], h.T[None], h.T[None], scale=1.0)[0].T


CUT: dict[str, Call] = {
    "sum of scaled product and bias": lambda h, m: torch.addmm(
        m.vector, h, m.square, beta=0.5, alpha=2.0
    ),
    "bias of two dimensions": lambda h, m: torch.addmm(m.rows, h, m.square) * h,
    "linear with a bias per row": lambda h, m: F.linear(h, m.square, m.rows),
    "linear with a single bias": lambda h, m: F.linear(h, m.square, m.vector[:1].mean()[None]),
    "vector as weight": lambda h, m: F.linear(h, m.vector)[:, None] * h,
    "product with a vector": lambda h, m: (h @ m.vector)[:, None] + h,
    "attention among heads": lambda h, m: joined(
        F.scaled_dot_product_attention(heads(h, 4), heads(h, 4), heads(h, 4))
    ),
    "attention with one mask": lambda h, m: joined(
        F.scaled_dot_product_attention(
            heads(h, 4), heads(h, 4), heads(h, 4), attn_mask=m.rows[:, :5]
        )
    ),
    "an empty part": lambda h, m: torch.cat([h[:, :WIDTH].sin(), h[:, WIDTH:]], 1),
    "an empty part by sizes": lambda h, m: torch.cat(h.split([0, WIDTH, 0], 1)[::-1], 1),
    "an empty part in the middle": lambda h, m: h + F.pad(h[:, 4:4], (0, 1)).sum(1, keepdim=True),
    "no elements at all": lambda h, m: h + h[:0].reshape(0, 3, 4).sum(),
    "axes moved": lambda h, m: h[None].movedim(-1, 0).swapaxes(0, 1).mT[0].mT.T.contiguous(),
    "a number among tensors": lambda h, m: h + m.rows.sum().softmax(0).sum(0).squeeze(0).amax(-1),
    "noise asked for": lambda h, m: F.dropout(h, 0.0, training=True),
    "largest of samples, with places": lambda h, m: h * h.max(0).values,
    "table of features": lambda h, m: h * F.embedding(torch.arange(5), m.rows),
}

HELD: dict[str, Call] = {
    "heads that share fixed keys": by_shared_keys,
    "channels as tokens": channels_as_tokens,
    "bytes": lambda h, m: h.view(torch.int64).view(torch.float64) * 1,
    "positions of channels": lambda h, m: h + h.argmax(1, keepdim=True),
}


def prepared(call: Call) -> tuple[Odd, Tensor]:
    torch.manual_seed(0)
    return Odd(call).double().eval(), torch.randn(5, 6).double()


@pytest.mark.parametrize("name", CUT)
def test_what_is_cut_computes_what_masks_do(name):
    model, x = prepared(CUT[name])
    pruned = plainly(model, x)
    assert pruned.model.get_submodule("first").weight.shape == (WIDTH // 2, 6)
    torch.testing.assert_close(pruned.model(x), masked(model, x, pruned, rows=True)(x))


def test_a_computed_weight_is_a_layer():
    model, x = prepared(lambda h, m: F.linear(h, m.square * m.vector))
    pruned = plainly(model, x)
    first, computed = pruned.plan.groups
    assert pruned.plan.form == "program"
    with torch.no_grad():
        for tensor in (model.first.weight, model.first.bias):
            tensor[list(first.removed)] = 0
        model.square[list(computed.removed)] = 0
    torch.testing.assert_close(pruned.model(x), model(x))


@pytest.mark.parametrize("name", HELD)
def test_what_can_t_leave_stays(name):
    model, x = prepared(HELD[name])
    first = group(read(trace(model, x))).groups[0]
    assert first.layers == ("first",)
    assert first.free == 0


def test_masks_of_attention_are_no_layers():
    model, x = prepared(CUT["attention with one mask"])
    reading = read(trace(model, x))
    assert not {"rows"} & {one.weight for one in (*reading.reads, *reading.writes)}


@pytest.mark.parametrize("restorer", ["lbyl", "merge"])
def test_positive_multiples_leave_exactly_through_a_slope_for_all(restorer):
    model = nn.Sequential(nn.Linear(6, 8), nn.PReLU(init=0.3), nn.Linear(8, 3)).double().eval()
    with torch.no_grad():
        model[0].weight[:4] = 0.01 * model[0].weight[4:]
        model[0].bias[:4] = 0.01 * model[0].bias[4:]
    x = torch.randn(7, 6).double()
    pruned = bequest.prune(
        model, x, 0.5, criterion="l1", restorer=restorer, round_to=1, progress=False
    )
    (only,) = pruned.plan.groups
    assert only.restored_by == restorer
    torch.testing.assert_close(pruned.model(x), model(x), rtol=0, atol=1e-9)

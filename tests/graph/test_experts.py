"""Mixtures of experts: a hidden unit leaves all experts of a layer, or one of a list of them."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace
from tests.graph.masking import masked, plainly
from tests.language.networks import WORDS, tokens, varied
from tests.timm_support import name_missing_operators

IN, HIDDEN, EXPERTS = 32, 16, 3  # a grouped product wants rows of a multiple of 16 bytes


class Experts(nn.Module):
    """Weights of all experts in one tensor, (experts, in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(EXPERTS, IN, HIDDEN) / 3)
        self.down = nn.Parameter(torch.randn(EXPERTS, HIDDEN, IN) / 3)


class ByEinsum(Experts):
    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        y = F.silu(torch.einsum("td,edh->eth", x, self.up))
        return torch.einsum("eth,ehd,te->td", y, self.down, shares)


class ByBatches(Experts):
    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        y = torch.bmm(F.silu(torch.bmm(x.expand(EXPERTS, -1, -1), self.up)), self.down)
        return (y * shares.T[..., None]).sum(0)


class Gated(nn.Module):
    """Gates and values in one tensor, (experts, out, in): rows of an expert stand together.

    PyTorch traces their product in half precision alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.randn(EXPERTS, 2 * HIDDEN, IN) / 3)
        self.down = nn.Parameter(torch.randn(EXPERTS, IN, HIDDEN) / 3)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        chosen = shares.argmax(-1)
        order = chosen.argsort()
        ends = F.one_hot(chosen, EXPERTS).sum(0).cumsum(0).int()
        both, down = self.both.bfloat16().mT, self.down.transpose(1, 2).bfloat16()
        gate, value = F.grouped_mm(x[order].bfloat16(), both, offs=ends).chunk(2, -1)
        y = F.grouped_mm(F.silu(gate) * value, down, offs=ends)
        return torch.zeros_like(x).index_add(0, order, y.to(x))


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(
            nn.Sequential(nn.Linear(IN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, IN))
            for _ in range(EXPERTS)
        )

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        parts = [shares[:, i : i + 1] * one(x) for i, one in enumerate(self.each)]
        return torch.stack(parts).sum(0)


class Chosen(Listed):
    """Each expert sees the rows that chose it, in a number that the values decide on."""

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        weights, chosen = shares.topk(2)
        y = torch.zeros_like(x)
        for i, one in enumerate(self.each):
            rows, place = torch.where(chosen == i)
            y = y.index_add(0, rows, one(x[rows]) * weights[rows, place, None])
        return y


class Net(nn.Module):
    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.first, self.router = nn.Linear(8, IN), nn.Linear(IN, EXPERTS)
        self.experts, self.head = experts, nn.Linear(IN, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(x + self.experts(x, self.router(x).softmax(-1)))


KINDS = [ByEinsum, ByBatches, Gated, Listed, Chosen]


def prepared(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Net(kind()).eval(), torch.randn(7, 8)


@pytest.mark.parametrize("groups", ["inner", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_units_leave_every_expert_alike(kind, groups):
    model, x = prepared(kind)
    pruned = plainly(model, x, groups=groups)
    inner = [one for one in pruned.report.groups if one.kind == "inner"]
    assert [len(one.removed) for one in inner] == [HIDDEN // 2] * (
        EXPERTS if issubclass(kind, Listed) else 1
    )
    assert pruned.report.notes == ()
    rough = {"atol": 0.02, "rtol": 0.02} if kind is Gated else {}
    torch.testing.assert_close(pruned.model(x), masked(model, x, pruned)(x), **rough)


@pytest.mark.parametrize("kind", [ByEinsum, ByBatches, Gated])
def test_experts_themselves_stay(kind):
    model, x = prepared(kind)
    channels = group(read(trace(model, x)))
    held = {reason for labels, reason in channels.reading.ledger.frozen if len(labels) == EXPERTS}
    router = next(one for one in channels.groups if one.name == "router")
    assert held
    assert router.free == 0


@pytest.mark.parametrize("kind", [ByEinsum, ByBatches, Listed, Chosen])
@pytest.mark.parametrize("restorer", ["lbyl", "merge"])
def test_units_that_are_alike_in_all_experts_are_handed_on_exactly(kind, restorer):
    model, x = prepared(kind)
    half = HIDDEN // 2
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name.endswith("up"):
                one[..., half:] = one[..., :half]
            elif name.endswith(("0.weight", "0.bias")):
                one[half:] = one[:half]
    pruned = bequest.prune(
        model, x, 0.5, criterion="redundancy", restorer=restorer, round_to=1, progress=False
    )
    assert {one.restored_by for one in pruned.report.groups} == {restorer}
    torch.testing.assert_close(pruned.model(x), model(x), atol=1e-5, rtol=1e-4)


def test_gated_units_of_two_rows_are_pruned_plainly_and_it_is_said():
    model, x = prepared(Gated)
    (one,) = bequest.prune(model, x, 0.5, restorer="lbyl", progress=False).report.groups
    assert one.restored_by == "none"
    assert any("pruned plainly" in note for note in one.notes)


MIXTURES = {
    "Mixtral": {"num_local_experts": 4},
    "Qwen2Moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 28,
    },
}


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_of_transformers(family, tmp_path):
    model = mixture(family)
    x = {"input_ids": tokens()}
    pruned = bequest.prune(
        model, x, {"*experts*": 0.5}, restorer="none", round_to=4, progress=False
    )
    assert pruned.plan.form == "module"
    assert pruned.report.notes == ()
    (one,) = pruned.report.groups
    down = model.get_parameter(f"{one.name.rpartition('.')[0]}.down_proj")
    assert len(one.removed) == down.shape[2] // 2
    with torch.no_grad():
        down[:, :, list(one.removed)] = 0
    torch.testing.assert_close(pruned.model(**x).logits, model(**x).logits)
    pruned.save(tmp_path / "out")
    again = bequest.load(tmp_path / "out", mixture(family))
    torch.testing.assert_close(again(**x).logits, model(**x).logits)


def mixture(family: str) -> nn.Module:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed; bequest[hf] brings it")
    name_missing_operators()
    import transformers

    config = getattr(transformers, f"{family}Config")(
        vocab_size=WORDS,
        hidden_size=48,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=64,
        **MIXTURES[family],
    )
    return varied(getattr(transformers, f"{family}ForCausalLM")(config))

"""Equal widths for layers of a kind, and the form of a network after a target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bequest
from bequest.errors import UsageError
from bequest.selection.widths import Bundle
from tests.language.networks import causal, tokens


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 40), nn.Linear(40, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Stack(nn.Module):
    """Blocks of a kind, of which the first has filters that are worth next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        with torch.no_grad():
            self.blocks[0].up.weight[::2] *= 1e-3

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def widths(pruned: bequest.Pruned) -> dict[str, int]:
    return {group.name: group.kept for group in pruned.plan.groups}


@pytest.mark.parametrize("uniform", [False, True])
def test_a_target_gives_layers_of_a_kind_equal_widths_where_that_is_asked(uniform):
    pruned = bequest.prune(
        Stack().eval(),
        torch.zeros(1, 12),
        target="params:0.8",
        restorer="none",
        round_to=1,
        uniform=uniform,
        progress=False,
    )
    kept = set(widths(pruned).values())
    assert (len(kept) == 1) is uniform
    share = pruned.report.after.params / pruned.report.before.params
    assert 0.8 - 3 * 25 / pruned.report.before.params <= share <= 0.8
    assert pruned.plan.recipe.get("uniform", False) is uniform


def test_a_ratio_that_contradicts_is_refused():
    ratio = {"blocks.0.*": 0.5, "*": 0.25}
    with pytest.raises(UsageError, match=r"0\.5 for 'blocks\.0\.up' and 0\.25 for 'blocks\.1\.up'"):
        bequest.prune(
            Stack().eval(), torch.zeros(1, 12), ratio, restorer="none", uniform=True, progress=False
        )


def test_a_global_ranking_is_refused():
    with pytest.raises(UsageError, match="uniform: scope 'global'"):
        bequest.prune(Stack(), torch.zeros(1, 12), scope="global", uniform=True, progress=False)


def test_a_bundle_loses_the_next_number_that_it_bears():
    bundle = Bundle((0, 1), bearable=(0, 2, 3))
    assert [bundle.borne(lost) for lost in range(5)] == [0, 2, 2, 3, 3]


def test_widths_that_no_configuration_says_stay_and_are_named(tmp_path):
    pruned = bequest.prune(
        causal("opt"),
        tokens(1, 16),
        target="params:0.85",
        restorer="none",
        data=[tokens(64, 16)],
        uniform=True,
        progress=False,
    )
    reasons = {one.group: one.reason for one in pruned.plan.refused}
    name = "model.decoder.layers.0.self_attn.q_proj"
    assert reasons[name] == "uniform: no number of OPTConfig stands for its width alone"
    assert set(widths(pruned)) == {f"model.decoder.layers.{i}.fc1" for i in range(2)}
    pruned.save_pretrained(tmp_path)


def test_a_target_takes_numbers_of_heads_that_the_configuration_takes(tmp_path):
    pruned = bequest.prune(
        causal("llama, 8 heads of 8"),
        tokens(1, 16),
        target="params:0.65",
        restorer="none",
        data=[tokens(64, 16)],
        uniform=True,
        progress=False,
    )
    heads = widths(pruned)["model.layers.0.self_attn.q_proj"]
    assert heads in (1, 2)  # 64 is no multiple of 3 · 2 heads
    pruned.save_pretrained(tmp_path)


class Choosy(nn.Module):
    """Its code does something else at one width: at half of it, or at any other."""

    def __init__(self, bears_half: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bears_half = bears_half
        self.one, self.two = nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        width = x.shape[-1]
        borne = width in (12, 6) if self.bears_half else width != 6
        return self.two(x if borne else x.tanh())


@pytest.mark.parametrize(("bears_half", "form"), [(False, "module"), (True, "program")])
def test_the_form_is_that_of_the_widths_which_the_target_has_found(bears_half, form):
    pruned = bequest.prune(
        Choosy(bears_half).eval(),
        torch.zeros(1, 6),
        target="params:0.8",
        restorer="none",
        round_to=1,
        progress=False,
    )
    assert pruned.plan.form == form
    assert widths(pruned)["one"] not in (12, 6)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_uniform_is_true_or_false(value):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with pytest.raises(UsageError, match="uniform: expected True or False"):
        bequest.prune(model, torch.zeros(1, 4), 0.5, uniform=value)

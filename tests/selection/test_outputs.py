"""``outputs=``: which of several results count; the others may become narrower."""

from __future__ import annotations

import importlib.util
from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn

import bequest
from bequest.errors import UsageError
from tests.architectures.planting import PlantedFirst
from tests.timm_support import name_missing_operators

WIDTH = 32
Two = namedtuple("Two", ("logits", "hidden"))

SHAPES = {
    "dict": lambda logits, hidden: {"logits": logits, "hidden": hidden},
    "named": Two,
    "tuple": lambda logits, hidden: (logits, hidden),
    "nested": lambda logits, hidden: {"logits": logits, "hidden": (hidden, hidden + 1)},
}
FIRST = {"dict": "logits", "named": "logits", "tuple": 0, "nested": "logits"}
SECOND = {"dict": "hidden", "named": "hidden", "tuple": 1, "nested": "hidden"}


class Net(nn.Module):
    def __init__(self, shape: str) -> None:
        super().__init__()
        self.shape = shape
        self.e, self.u, self.d = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)
        self.o = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> object:
        x = self.e(x)
        x = x + self.d(torch.relu(self.u(x)))
        return SHAPES[self.shape](self.o(x), x)


def made(shape: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Net(shape).double().eval(), torch.randn(3, 8, dtype=torch.float64)


def leaves(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return torch.utils._pytree.tree_leaves(model(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_result_that_does_not_count_holds_nothing_and_loses_what_leaves(shape, tmp_path):
    model, x = made(shape)
    dead = (0, 3, 5, 9, 30)
    with torch.no_grad():
        for one in (model.e, model.d):
            one.weight[list(dead)], one.bias[list(dead)] = 0, 0
    pruned = bequest.prune(
        model,
        x,
        {"e": 5 / WIDTH},
        groups="all",
        criterion=PlantedFirst({"e": dead}),
        restorer="none",
        outputs=[FIRST[shape]],
        round_to=1,
        progress=False,
    )
    assert pruned.plan.groups[0].removed == dead
    kept = [channel for channel in range(WIDTH) if channel not in dead]
    found, (logits, *hidden) = leaves(pruned.model, x), leaves(model, x)
    torch.testing.assert_close(found[0], logits, rtol=0, atol=1e-12)
    for narrow, wide in zip(found[1:], hidden, strict=True):
        torch.testing.assert_close(narrow, wide[:, kept], rtol=0, atol=1e-12)
    assert sum("narrower" in note for note in pruned.report.notes) == len(hidden)
    assert pruned.plan.recipe["outputs"] == [FIRST[shape] if shape != "tuple" else "[0]"]
    pruned.save(tmp_path / "out")
    loaded = bequest.load(tmp_path / "out", Net(shape).double().eval())
    for one, other in zip(leaves(loaded, x), found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", ["tuple", "nested"])
def test_what_is_held_is_named_and_what_counts_is_held(shape):
    model, x = made(shape)
    for outputs in (None, [SECOND[shape]]):
        pruned = bequest.prune(
            model, x, 0.5, groups="all", restorer="none", outputs=outputs, progress=False
        )
        (held,) = (one for one in pruned.report.refused if one.group == "e")
        name = {"tuple": "[1]", "nested": "hidden[0]"}.get(shape, "hidden")
        assert f"the network's output '{name}'" in held.reason
        assert "or leave it out of outputs=[...]" in held.reason
        assert leaves(pruned.model, x)[1].shape == (3, WIDTH)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("logits", r"outputs: expected a list .* found 'logits'"),
        ([], r"outputs: expected a list .* found \[\]"),
        ([None], "outputs: expected a list"),
        ([True], "outputs: expected a list"),
        (["logit"], r"expected results of the network \('logits', 'hidden'\), found 'logit'"),
        ([2], r"found '\[2\]'"),
    ],
)
def test_wrong_names_are_refused(outputs, message):
    model, x = made("dict")
    with pytest.raises(UsageError, match=message):
        bequest.prune(model, x, 0.5, restorer="none", outputs=outputs, progress=False)


def test_the_place_of_a_named_result_will_do():
    model, x = made("dict")
    settings = {"groups": "all", "restorer": "none", "progress": False}
    found = [bequest.prune(model, x, 0.5, outputs=[one], **settings) for one in (0, "logits")]
    assert found[0].plan.surgery == found[1].plan.surgery


def test_a_single_result_counts():
    with pytest.raises(UsageError, match="a single result, which counts"):
        bequest.prune(nn.Linear(3, 4), torch.zeros(1, 3), 0.5, outputs=["x"], progress=False)


@pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="transformers is absent")
def test_a_stream_that_transformers_returns_beside_the_logits():
    name_missing_operators()
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=60, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, use_cache=False
    )
    model, tokens = T5ForConditionalGeneration(config).eval(), torch.ones(1, 6, dtype=torch.long)
    inputs = {"input_ids": tokens, "decoder_input_ids": tokens}
    views = bequest.inspect(model, inputs).groups
    assert any("'encoder_last_hidden_state'" in why for one in views for why in one.reasons)
    settings = {"groups": "all", "restorer": "none", "progress": False}
    pruned = bequest.prune(model, inputs, 0.5, outputs=["logits"], **settings)
    assert not pruned.report.refused
    assert pruned.report.after.params < 0.35 * pruned.report.before.params
    found = pruned.model(**inputs)
    assert found.logits.shape == (1, 6, 60)
    assert found.encoder_last_hidden_state.shape == (1, 6, 16)

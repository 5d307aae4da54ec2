"""Folders that transformers loads: its own from_pretrained reads them back from the disk."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bequest
from bequest.artifact import pretrained
from bequest.errors import ArtifactError, ModelError, UsageError
from tests.language.networks import WORDS, causal, continued, tokens

MLP = {"*attn*": 0, "*attention*": 0, "*": 0.3}
ONE = {"num_hidden_layers": 1}


def pruned_of(model: nn.Module, ratio: Any = 0.3, **options: Any) -> bequest.Pruned:
    return bequest.prune(model, tokens(1), ratio, restorer="none", progress=False, **options)


def loaded(folder: Path) -> nn.Module:
    """What plain transformers makes of a folder; every tensor is there and has its place."""
    import transformers

    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def require_same(folder: Path, pruned: bequest.Pruned) -> Any:
    """Checks class and logits; returns the configuration."""
    model = loaded(folder)
    assert type(model) is type(pruned.model)
    with torch.no_grad():
        assert torch.allclose(model(tokens()).logits, pruned.model(tokens()).logits, atol=1e-5)
    assert model.config.vocab_size == WORDS
    ties = model.config.tie_word_embeddings
    tables = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (tables[0] is tables[1]) is bool(ties)
    return model.config


MIDDLE = {"intermediate_size": 48}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, **MIDDLE}
WIDTHS: dict[str, tuple[Any, str, dict[str, int]]] = {
    "llama": (0.3, "inner", {**HEADS, "head_dim": 10}),
    "llama, 8 heads of 8": (0.5, "inner", {**HEADS, "head_dim": 8, "intermediate_size": 40}),
    "mistral": (0.3, "inner", {**HEADS, "head_dim": 10}),
    "qwen3": (0.3, "inner", HEADS),
    "gemma2": (0.3, "inner", HEADS),
    "phi": (
        0.3,
        "inner",
        {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, **MIDDLE},
    ),
    "phi3": (0.3, "inner", {**HEADS, "head_dim": 8}),
    "gpt2": (MLP, "inner", {"n_embd": 48, "n_head": 6, "n_inner": 48}),
    "gpt-neox": (MLP, "inner", {"intermediate_size": 48, "num_attention_heads": 6}),
    "opt": (MLP, "inner", {"ffn_dim": 48, "num_attention_heads": 6}),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_the_configuration_says_the_widths_that_its_class_has_them_for(name, tmp_path):
    ratio, groups, expected = WIDTHS[name]
    layers = {"n_layer" if name == "gpt2" else "num_hidden_layers": 1}
    model = causal(name, **layers)
    before = model.config.to_dict()
    pruned = pruned_of(model, ratio, groups=groups)
    pruned.save_pretrained(tmp_path / "out")
    config = require_same(tmp_path / "out", pruned)
    assert {key: getattr(config, key) for key in expected} == expected
    assert model.config.to_dict() == pruned.model.config.to_dict() == before


def test_a_narrower_stream_is_said_with_the_heads_whose_width_follows_from_it(tmp_path):
    pruned = pruned_of(causal("gpt2", n_layer=1), 0.3, groups="all")
    pruned.save_pretrained(tmp_path)
    config = require_same(tmp_path, pruned)
    assert (config.n_embd, config.n_head, config.n_inner) == (32, 4, 48)


def test_what_was_loaded_writes_what_the_pruned_network_writes(tmp_path):
    pruned = pruned_of(causal("llama"))
    pruned.save_pretrained(tmp_path)
    model = loaded(tmp_path)
    for use_cache in (True, False):
        wanted = continued(pruned.model, use_cache=use_cache)
        assert torch.equal(continued(model, use_cache=use_cache), wanted)


def test_biases_that_a_setting_stands_for_are_switched_on(tmp_path):
    pruned = pruned_of(causal("llama", **ONE), MLP)
    layer = pruned.model.model.layers[0].mlp.down_proj
    layer.bias = nn.Parameter(torch.linspace(-1, 1, layer.out_features))
    pruned.save_pretrained(tmp_path)
    assert require_same(tmp_path, pruned).mlp_bias is True


def test_biases_that_no_setting_stands_for_are_named(tmp_path):
    pruned = pruned_of(causal("qwen3", **ONE), MLP)
    layer = pruned.model.model.layers[0].mlp.down_proj
    layer.bias = nn.Parameter(torch.ones(layer.out_features))
    with pytest.raises(ModelError, match=r"Qwen3Config.*no model\.layers\.0\.mlp\.down_proj\.bias"):
        pruned.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unequal_layers_are_named_with_the_way_out(tmp_path):
    pruned = pruned_of(causal("llama"), {"*.0.mlp.*": 0.3, "*.1.mlp.*": 0.5})
    with pytest.raises(ModelError) as refused:
        pruned.save_pretrained(tmp_path)
    for part in (
        "intermediate_size",
        "40 in model.layers.1.mlp",
        "48 in model.layers.0",
        "uniform",
    ):
        assert part in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_share_is_named_that_heads_and_stream_can_lose_alike(tmp_path):
    pruned = pruned_of(causal("gpt2", n_layer=1), 0.2, groups="all")
    with pytest.raises(ModelError) as refused:
        pruned.save_pretrained(tmp_path / "out")
    share = re.search(r"ask for ratio=(\S+) or \S+, which 6 and 48 channels", str(refused.value))
    pruned_of(causal("gpt2", n_layer=1), float(share[1]), groups="all").save_pretrained(tmp_path)
    assert loaded(tmp_path).config.n_head == 5


def test_heads_whose_width_follows_from_their_number_are_named(tmp_path):
    pruned = pruned_of(causal("opt"))
    with pytest.raises(ModelError) as refused:
        pruned.save_pretrained(tmp_path)
    assert "q_proj" in str(refused.value)
    assert "ratio={'model.decoder.layers.*.self_attn.q_proj': 0, '*': ...}" in str(refused.value)


def test_numbers_that_the_configuration_itself_refuses_are_named(tmp_path):
    pruned = pruned_of(causal("llama, 8 heads of 8", **ONE), 0.25)
    with pytest.raises(ModelError, match=r"num_attention_heads=6.*\(64\) is not a multiple"):
        pruned.save_pretrained(tmp_path)


def test_what_transformers_has_no_class_for_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    pruned = bequest.prune(model, torch.zeros(1, 8), restorer="none", progress=False)
    with pytest.raises(UsageError, match=r"transformers' own classes, found torch\.nn"):
        pruned.save_pretrained(tmp_path)


def test_a_folder_with_files_in_it_is_refused_and_left(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    pruned = pruned_of(causal("llama", **ONE), MLP)
    with pytest.raises(UsageError, match=r"holding note\.txt"):
        pruned.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("existed", [True, False])
def test_a_full_disk_leaves_nothing(existed, tmp_path, monkeypatch):
    target = tmp_path / "out"
    if existed:
        target.mkdir()

    def full(model: object, staging: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pretrained, "_copy_tokeniser", full)
    with pytest.raises(ArtifactError, match="nothing was left"):
        pruned_of(causal("llama", **ONE), MLP).save_pretrained(target)
    assert not target.exists() or not list(target.iterdir())


def test_a_real_network_goes_from_folder_to_folder(tmp_path):
    source = Path(os.environ.get("BEQUEST_SHARED", "../shared"), "weights", "stories260k")
    if not source.is_dir():
        pytest.skip("the weights of stories260k are not here")
    causal("llama", **ONE)  # skips where transformers is not installed
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    ratio = {"*self_attn*": 0.5, "*": 0.2}
    pruned = pruned_of(model, ratio, round_to=1)
    pruned.save_pretrained(tmp_path)
    again = loaded(tmp_path)
    with torch.no_grad():
        assert torch.allclose(again(tokens()).logits, pruned.model(tokens()).logits, atol=1e-5)
    saved = json.loads((tmp_path / "config.json").read_text())
    held = json.loads((source / "config.json").read_text())
    assert saved["architectures"] == held["architectures"]
    assert (saved["num_attention_heads"], saved["num_key_value_heads"], saved["head_dim"]) == (
        4,
        2,
        8,
    )
    assert saved["vocab_size"] == held["vocab_size"]
    assert (tmp_path / "tok512.bin").read_bytes() == (source / "tok512.bin").read_bytes()
    card = (tmp_path / "README.md").read_text()
    assert f"{pruned.report.after.params:,}" in card
    assert "| `model.layers.0.self_attn.q_proj` | 2 | 4 |" in card

"""Language models are pruned as they were loaded: with a cache, which stays theirs."""

from __future__ import annotations

import pytest
import torch

import bequest
from bequest.execution.copies import private_copy
from tests.language.networks import CAUSAL, causal, continued, tokens


@pytest.mark.parametrize("name", CAUSAL)
def test_a_copy_that_is_looked_at_returns_logits_alone(name):
    model = causal(name)
    settings = str(model.config.to_dict())
    assert "past_key_values" in model(tokens())
    copy = private_copy(model)
    assert list(copy(tokens())) == ["logits"]
    assert list(private_copy(copy)(tokens(), use_cache=True)) == ["logits"]
    assert len(copy(tokens(), use_cache=True, return_dict=False)) == 1
    assert str(model.config.to_dict()) == settings
    assert "past_key_values" in model(tokens())
    assert not model._forward_hooks


@pytest.mark.parametrize("example", ["tensor", "names", "asks for its cache"])
def test_a_pruned_network_writes_alike_with_and_without_its_cache(example):
    model = causal("llama")
    inputs = {
        "tensor": tokens(1),
        "names": {"input_ids": tokens(1), "attention_mask": torch.ones_like(tokens(1))},
        "asks for its cache": {"input_ids": tokens(1), "use_cache": True},
    }[example]
    pruned = bequest.prune(model, inputs, 0.3, restorer="none", progress=False)
    assert type(pruned.model) is type(model)
    assert pruned.model.config.use_cache is True
    assert not pruned.model._forward_hooks
    assert {len(group.removed) / group.size for group in pruned.plan.groups} == {1 / 3}
    with_cache, without = (continued(pruned.model, use_cache=use) for use in (True, False))
    assert torch.equal(with_cache, without)
    assert "past_key_values" in pruned.model(tokens())


ATTENTION = ("q_proj", "qkv_proj", "c_attn", "query_key_value")
UNSAVED = ("falcon", "falcon, all of its own", "bloom", "gemma3", "qwen2", "smollm3", "olmo2")
"""Those that test_save_pretrained doesn't prune."""


@pytest.mark.parametrize("name", UNSAVED)
def test_hidden_units_and_heads_leave(name):
    layers = {"n_layer" if name == "bloom" else "num_hidden_layers": 1}
    model = causal(name, **layers)
    pruned = bequest.prune(model, tokens(1), 0.3, restorer="none", progress=False)
    assert type(pruned.model) is type(model)
    names = [group.name for group in pruned.plan.groups]
    assert any("mlp" in one for one in names)
    if name == "falcon":  # one head of keys serves all
        assert any("is looked up by index" in one.reason for one in pruned.plan.refused)
    else:
        assert any(one.endswith(ATTENTION) for one in names)
    with_cache, without = (continued(pruned.model, use_cache=use) for use in (True, False))
    assert torch.equal(with_cache, without)


@pytest.mark.parametrize("name", ["llama, 8 heads of 8", "gpt2", "phi3"])
def test_heads_leave_where_two_sizes_are_equal(name, tmp_path):
    model = causal(name)
    pruned = bequest.prune(model, tokens(1), 0.5, restorer="none", progress=False)
    assert pruned.plan.form == "module"
    assert any(group.name.endswith(ATTENTION) for group in pruned.plan.groups)
    with_cache, without = (continued(pruned.model, use_cache=use) for use in (True, False))
    assert torch.equal(with_cache, without)
    pruned.save(tmp_path)
    again = bequest.load(tmp_path, causal(name))
    assert torch.equal(again(tokens()).logits, pruned.model(tokens()).logits)

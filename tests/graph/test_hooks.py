"""Hooks: those that only watch stay, all others are named, with the way out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import bequest
from bequest.errors import ModelError
from bequest.graph.admission import admit
from tests.timm_support import name_missing_operators


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def doubled(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return 2 * output


def test_all_hooks_are_named_at_once():
    model = network()
    model[0].register_forward_hook(doubled)
    model[2].register_forward_pre_hook(lambda module, args: args)
    model[2].register_full_backward_hook(lambda *_: None)
    with pytest.raises(ModelError) as refused:
        admit(model)
    for part in ("'0' carries a hook (doubled, forward_hooks)", "forward_pre_hooks", "backward"):
        assert part in str(refused.value)
    assert str(refused.value).count("carries a hook") == 3


def test_a_hook_on_every_module_of_the_process_is_named():
    handle = nn.modules.module.register_module_forward_hook(doubled)
    try:
        with pytest.raises(ModelError, match=r"every module of the process.*doubled"):
            bequest.prune(network(), torch.zeros(1, 6), progress=False)
    finally:
        handle.remove()


def test_a_call_inside_a_flop_counter_works():
    with FlopCounterMode(display=False):
        pruned = bequest.prune(network(), torch.zeros(1, 6), restorer="none", progress=False)
    assert pruned.plan.groups


def test_what_accelerate_wraps_is_refused_with_the_cure():
    model = network()
    model[0]._hf_hook = object()
    with pytest.raises(ModelError, match="remove_hook_from_submodules"):
        admit(model)


def test_a_library_that_captures_outputs_by_hooks_goes_on_to_do_so():
    transformers = pytest.importorskip("transformers", reason="needs bequest[hf]")
    name_missing_operators()
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = transformers.BertModel(config).eval()
    tokens = {"input_ids": torch.ones(1, 4, dtype=torch.long)}
    fresh = bequest.prune(model, tokens, 0.5, restorer="none", progress=False)
    model(**tokens, output_hidden_states=True)
    assert any(module._forward_hooks for module in model.modules())
    used = bequest.prune(model, tokens, 0.5, restorer="none", progress=False)
    assert used.plan.groups == fresh.plan.groups
    for pruned in (fresh.model, used.model):
        with torch.no_grad():
            found = pruned(**tokens, output_hidden_states=True)
        assert len(found.hidden_states) == 3
        assert torch.equal(found.hidden_states[-1], found.last_hidden_state)

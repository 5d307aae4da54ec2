"""Small language models of transformers, of random weights, whose numbers all differ.

Where two sizes were equal, a width could pass for another: heads for their width, keys for queries.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.timm_support import name_missing_operators

WORDS = 97

_COMMON = {
    "vocab_size": WORDS,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2",
        {"n_embd": 48, "n_inner": 72, "n_layer": 2, "n_head": 6, "n_positions": 64},
    ),
    "opt": ("OPT", {"ffn_dim": 72, "word_embed_proj_dim": 48}),
    "gpt-neox": ("GPTNeoX", {}),
    "llama": ("Llama", {"head_dim": 10}),
    "llama, 8 heads of 8": (
        "Llama",
        {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4},
    ),
    "mistral": ("Mistral", {"head_dim": 10, "sliding_window": 16}),
    "qwen2": ("Qwen2", {"hidden_size": 60}),
    "qwen3": ("Qwen3", {"head_dim": 10}),
    "gemma2": ("Gemma2", {"head_dim": 10, "query_pre_attn_scalar": 12, "sliding_window": 16}),
    "gemma3": ("Gemma3", {"head_dim": 10, "query_pre_attn_scalar": 12, "sliding_window": 16}),
    "phi": ("Phi", {"num_key_value_heads": 6, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", {}),
    "phi3, half rotated": ("Phi3", {"partial_rotary_factor": 0.5}),
    "falcon": ("Falcon", {"ffn_hidden_size": 72}),
    "falcon, all of its own": (
        "Falcon",
        {
            "ffn_hidden_size": 72,
            "num_kv_heads": 3,
            "new_decoder_architecture": True,
            "bias": True,
        },
    ),
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 6}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
    "olmo2": ("Olmo2", {}),
}
"""Name → the beginning of its class's name, and what its configuration has beside the others'."""


def causal(name: str, **changes: Any) -> nn.Module:
    """A network of :data:`CAUSAL` with weights that vary everywhere, in evaluation mode.

    Args:
        name: a key of it.
        changes: other settings of the configuration.
    """
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed; bequest[hf] brings it")
    name_missing_operators()
    import transformers

    prefix, settings = CAUSAL[name]
    text = {"Gemma3": "Gemma3Text"}.get(prefix, prefix)
    kind = {"GPT2": "GPT2LMHeadModel"}.get(prefix, f"{prefix}ForCausalLM")
    config = getattr(transformers, f"{text}Config")(**{**_COMMON, **settings, **changes})
    return varied(getattr(transformers, kind)(config))


def varied(model: nn.Module) -> nn.Module:
    """Random weights of a size that keeps attention and gates from saturating."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                table = "embed" in name or "wte" in name or "wpe" in name
                parameter.copy_(noise * (0.5 if table else 1.2 * parameter.shape[-1] ** -0.5))
            else:
                parameter.add_(0.1 * noise)
    return model.eval()


def tokens(rows: int = 2, length: int = 8) -> Tensor:
    """Random words, int64 (rows, length)."""
    return torch.randint(3, WORDS, (rows, length), generator=torch.Generator().manual_seed(1))


def continued(model: nn.Module, *, use_cache: bool) -> Tensor:
    """What the network writes behind two rows of six words, greedily."""
    start = tokens(length=6)
    generate: Any = model.generate
    written: Tensor = generate(
        start,
        attention_mask=torch.ones_like(start),
        max_new_tokens=10,
        min_new_tokens=10,
        do_sample=False,
        use_cache=use_cache,
    )
    return written

"""Language networks of transformers, built small from their configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.architectures.subject import Subject, tokens

_ROWS = 200
_USUAL: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "intermediate_size": 128,
}


def _reader(family: str, head: str = "ForMaskedLM", **sizes: Any) -> Callable[[], Subject]:
    """A network that fills in words."""
    return _made(family, head, {"input_ids": tokens(_ROWS, 2, 12)}, **sizes)


def _writer(family: str, head: str = "ForCausalLM", **sizes: Any) -> Callable[[], Subject]:
    """A network that goes on with a text; it keeps no cache."""
    inputs = {"input_ids": tokens(_ROWS, 2, 12), "use_cache": False}
    return _made(family, head, inputs, **sizes)


def _translator(family: str, head: str, **sizes: Any) -> Callable[[], Subject]:
    """An encoder and a decoder that reads what the encoder says; the words count."""
    inputs = {
        "input_ids": tokens(_ROWS, 2, 12),
        "decoder_input_ids": tokens(_ROWS, 2, 6),
        "use_cache": False,
    }
    return _made(family, head, inputs, ("logits",), shares_streams=True, **sizes)


def _made(
    family: str,
    head: str,
    inputs: dict[str, Any],
    results: tuple[str, ...] | None = None,
    *,
    shares_streams: bool = False,
    **sizes: Any,
) -> Callable[[], Subject]:
    def make() -> Subject:
        import transformers

        settings = getattr(transformers, f"{family}Config")(vocab_size=_ROWS, **sizes)
        build = lambda: getattr(transformers, f"{family}{head}")(settings)  # noqa: E731
        return Subject(build, inputs, results, shares_streams)

    return make


_TRANSLATOR: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 32,
}

NETWORKS: dict[str, Callable[[], Subject]] = {
    "hf-bert": _reader("Bert", **_USUAL),
    "hf-distilbert": _reader("DistilBert", dim=64, n_layers=3, n_heads=8, hidden_dim=128),
    "hf-electra": _reader("Electra", embedding_size=32, **_USUAL),
    "hf-deberta": _reader("DebertaV2", **_USUAL),
    "hf-convbert": _reader("ConvBert", embedding_size=64, max_position_embeddings=32, **_USUAL),
    "hf-mobilebert": _reader(
        "MobileBert", **(_USUAL | {"embedding_size": 32, "intra_bottleneck_size": 32})
    ),
    "hf-fnet": _reader("FNet", max_position_embeddings=12, **_USUAL),
    "hf-xlnet": _reader("XLNet", "LMHeadModel", d_model=64, n_layer=3, n_head=8, d_inner=128),
    "hf-llama": _writer("Llama", num_key_value_heads=4, **_USUAL),
    "hf-mistral": _writer("Mistral", num_key_value_heads=4, **_USUAL),
    "hf-qwen3": _writer("Qwen3", num_key_value_heads=4, head_dim=8, **_USUAL),
    "hf-gemma2": _writer("Gemma2", num_key_value_heads=4, head_dim=8, **_USUAL),
    "hf-phi": _writer("Phi", **_USUAL),
    "hf-phi3": _writer("Phi3", pad_token_id=0, **_USUAL),
    "hf-gpt2": _writer("GPT2", "LMHeadModel", n_embd=64, n_layer=3, n_head=8, n_positions=32),
    "hf-gpt_neox": _writer("GPTNeoX", **_USUAL),
    "hf-opt": _writer(
        "OPT",
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=8,
        ffn_dim=128,
        word_embed_proj_dim=64,
        max_position_embeddings=32,
    ),
    "hf-falcon": _writer("Falcon", hidden_size=64, num_hidden_layers=3, num_attention_heads=8),
    "hf-bloom": _writer("Bloom", hidden_size=64, n_layer=3, n_head=8),
    "hf-mixtral": _writer("Mixtral", num_local_experts=4, num_key_value_heads=4, **_USUAL),
    "hf-qwen2_moe": _writer(
        "Qwen2Moe",
        num_key_value_heads=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        shared_expert_intermediate_size=64,
        **_USUAL,
    ),
    "hf-mamba": _writer("Mamba", hidden_size=64, num_hidden_layers=2, state_size=8),
    "hf-mamba2": _writer(
        "Mamba2",
        hidden_size=64,
        num_hidden_layers=2,
        state_size=8,
        num_heads=16,
        head_dim=8,
        n_groups=4,
        chunk_size=8,
    ),
    "hf-rwkv": _writer(
        "Rwkv",
        hidden_size=64,
        num_hidden_layers=2,
        attention_hidden_size=64,
        intermediate_size=128,
        context_length=32,
    ),
    "hf-t5": _translator(
        "T5",
        "ForConditionalGeneration",
        d_model=64,
        d_kv=8,
        d_ff=128,
        num_layers=2,
        num_heads=8,
    ),
    "hf-bart": _translator("Bart", "ForConditionalGeneration", **_TRANSLATOR),
}

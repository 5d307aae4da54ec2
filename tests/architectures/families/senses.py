"""Networks of transformers that see or hear, built small from their configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.architectures.subject import Subject, noise, tokens

_USUAL: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
_PATCHES: dict[str, Any] = {"image_size": 64, "patch_size": 16}


def _image(
    family: str,
    head: str = "ForImageClassification",
    results: tuple[str, ...] | None = None,
    **sizes: Any,
) -> Callable[[], Subject]:
    def make() -> Subject:
        import transformers

        settings = getattr(transformers, f"{family}Config")(num_labels=10, **sizes)
        build = lambda: getattr(transformers, f"{family}{head}")(settings)  # noqa: E731
        return Subject(build, {"pixel_values": noise(2, 3, 64, 64)}, results)

    return make


def _clip() -> Subject:
    import transformers

    settings = transformers.CLIPConfig(
        text_config={**_USUAL, "vocab_size": 200, "max_position_embeddings": 12},
        vision_config={**_USUAL, **_PATCHES},
        projection_dim=32,
    )
    inputs = {"input_ids": tokens(199, 2, 12), "pixel_values": noise(2, 3, 64, 64)}
    return Subject(lambda: transformers.CLIPModel(settings), inputs, ("logits_per_image",))


def _detr() -> Subject:
    import transformers

    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], out_features=["stage2"]
    )
    settings = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        num_queries=10,
        num_labels=5,
    )
    return Subject(
        lambda: transformers.DetrForObjectDetection(settings),
        {"pixel_values": noise(2, 3, 64, 64)},
        ("logits", "pred_boxes"),
        shares_streams=True,
    )


def _whisper() -> Subject:
    import transformers

    settings = transformers.WhisperConfig(
        vocab_size=200,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=30,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    inputs = {
        "input_features": noise(2, 80, 60),
        "decoder_input_ids": tokens(100, 2, 6),
        "use_cache": False,
    }
    return Subject(
        lambda: transformers.WhisperForConditionalGeneration(settings),
        inputs,
        ("logits",),
        shares_streams=True,
    )


def _wav2vec2() -> Subject:
    import transformers

    settings = transformers.Wav2Vec2Config(
        vocab_size=32,
        conv_dim=(32, 32, 32),
        conv_stride=(5, 2, 2),
        conv_kernel=(10, 3, 3),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **_USUAL,
    )
    build = lambda: transformers.Wav2Vec2ForCTC(settings)  # noqa: E731
    return Subject(build, {"input_values": noise(2, 2000)})


NETWORKS: dict[str, Callable[[], Subject]] = {
    "hf-vit": _image("ViT", **_USUAL, **_PATCHES),
    "hf-dinov2": _image("Dinov2", **_USUAL, **_PATCHES),
    "hf-resnet": _image("ResNet", embedding_size=32, hidden_sizes=[64, 128, 256], depths=[2] * 3),
    "hf-convnext": _image("ConvNext", hidden_sizes=[32, 64, 96, 128], depths=[2] * 4),
    "hf-segformer": _image(
        "Segformer",
        "ForSemanticSegmentation",
        hidden_sizes=[16, 32, 32, 64],
        depths=[1] * 4,
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=32,
    ),
    "hf-yolos": _image(
        "Yolos",
        "ForObjectDetection",
        ("logits", "pred_boxes"),
        num_detection_tokens=5,
        **(_USUAL | {"image_size": [64, 64], "patch_size": 16}),
    ),
    "hf-clip": _clip,
    "hf-detr": _detr,
    "hf-whisper": _whisper,
    "hf-wav2vec2": _wav2vec2,
}

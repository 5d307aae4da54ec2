"""Networks whose result is an image or a map: diffusion and segmentation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.architectures.subject import Subject, noise


def _unet() -> Subject:
    from diffusers import UNet2DModel

    def build() -> torch.nn.Module:
        return UNet2DModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
        )

    return Subject(build, {"sample": noise(2, 3, 16, 16), "timestep": torch.tensor([3, 5])})


def _conditional_unet() -> Subject:
    from diffusers import UNet2DConditionModel

    def build() -> torch.nn.Module:
        return UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
            norm_num_groups=8,
        )

    return Subject(
        build,
        {
            "sample": noise(2, 4, 16, 16),
            "timestep": torch.tensor([3, 5]),
            "encoder_hidden_states": noise(2, 6, 32),
        },
    )


def _autoencoder() -> Subject:
    from diffusers import AutoencoderKL

    def build() -> torch.nn.Module:
        return AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
        )

    return Subject(build, {"sample": noise(2, 3, 32, 32)})


def _dit() -> Subject:
    from diffusers import DiTTransformer2DModel

    def build() -> torch.nn.Module:
        return DiTTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            sample_size=16,
            num_embeds_ada_norm=10,
        )

    return Subject(
        build,
        {
            "hidden_states": noise(2, 4, 16, 16),
            "timestep": torch.tensor([3, 5]),
            "class_labels": torch.tensor([1, 2]),
        },
    )


def _segmenter(name: str, encoder: str) -> Callable[[], Subject]:
    def make() -> Subject:
        import segmentation_models_pytorch as smp

        kind = getattr(smp, name)
        return Subject(lambda: kind(encoder, encoder_weights=None, classes=4), noise(2, 3, 64, 64))

    return make


DIFFUSERS: dict[str, Callable[[], Subject]] = {
    "diffusers-unet": _unet,
    "diffusers-conditional_unet": _conditional_unet,
    "diffusers-autoencoder": _autoencoder,
    "diffusers-dit": _dit,
}
SEGMENTERS: dict[str, Callable[[], Subject]] = {
    "smp-unet_resnet18": _segmenter("Unet", "resnet18"),
    "smp-deeplabv3plus_resnet18": _segmenter("DeepLabV3Plus", "resnet18"),
    "smp-fpn_mobilenet_v2": _segmenter("FPN", "mobilenet_v2"),
    "smp-unetplusplus_resnet18": _segmenter("UnetPlusPlus", "resnet18"),
}

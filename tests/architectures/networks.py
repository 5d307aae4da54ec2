"""Networks of timm and transformers as their libraries make them, with weights that tell.

Weights are random, but none is a constant: a zero-initialised scale would hide what pruning does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.timm_support import name_missing_operators

TIMM = (
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "vgg16_bn",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "densenet121",
    "convnext_atto",
    "regnety_002",
    "inception_v3",
    "ghostnet_100",
    "deit_tiny_patch16_224",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s16_224",
    "efficientformer_l1",
    "coat_tiny",
    "mobilevit_s",
    "maxvit_tiny_tf_224",
    "repvgg_a0",
    "hrnet_w18_small",
    "dla34",
    "cspdarknet53",
)
TRANSFORMERS = ("hf-vit", "hf-resnet", "hf-convnext", "hf-bert", "hf-llama")
NAMES = (*TIMM, *TRANSFORMERS)


@dataclass(frozen=True)
class Subject:
    """A network to prune.

    Attributes:
        name: as in :data:`NAMES`.
        build: makes a fresh instance with the library's own initial weights.
        example: inputs of a batch of two, by keyword for the networks of transformers.
    """

    name: str
    build: Callable[[], nn.Module]
    example: Tensor | dict[str, Tensor]

    def trained(self) -> nn.Module:
        """An instance whose weights are random in every place, in evaluation mode."""
        torch.manual_seed(0)
        return _vary(self.build().eval(), self.example)


def subject(name: str) -> Subject:
    """The network called ``name``; its library must be installed."""
    name_missing_operators()
    if name in TIMM:
        return _timm(name)
    return _TRANSFORMERS[name](name)


def outputs(model: nn.Module, example: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Everything floating-point that the network returns, as one vector; caches are no results."""
    value = model(**example) if isinstance(example, Mapping) else model(example)
    return torch.cat([tensor.flatten() for tensor in _tensors(value)])


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    items = value
    if isinstance(value, Mapping):
        items = [one for name, one in value.items() if name != "past_key_values"]
    return [tensor for item in items for tensor in _tensors(item)] if items else []


def _timm(name: str) -> Subject:
    import timm

    size = timm.get_pretrained_cfg(name).input_size
    example = torch.randn(2, *size, generator=torch.Generator().manual_seed(1))
    return Subject(name, lambda: timm.create_model(name), example)


def _image_network(model: str, config: str, **sizes: Any) -> Callable[[str], Subject]:
    def make(name: str) -> Subject:
        import transformers

        settings = getattr(transformers, config)(num_labels=10, **sizes)
        example = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        build = lambda: getattr(transformers, model)(settings)  # noqa: E731
        return Subject(name, build, {"pixel_values": example})

    return make


def _language_network(model: str, config: str, **sizes: Any) -> Callable[[str], Subject]:
    def make(name: str) -> Subject:
        import transformers

        settings = getattr(transformers, config)(vocab_size=200, **sizes)
        tokens = torch.randint(0, 200, (2, 12), generator=torch.Generator().manual_seed(1))
        build = lambda: getattr(transformers, model)(settings)  # noqa: E731
        return Subject(name, build, {"input_ids": tokens})

    return make


_TRANSFORMERS: dict[str, Callable[[str], Subject]] = {
    "hf-vit": _image_network(
        "ViTForImageClassification",
        "ViTConfig",
        image_size=64,
        patch_size=16,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
    ),
    "hf-resnet": _image_network(
        "ResNetForImageClassification",
        "ResNetConfig",
        embedding_size=32,
        hidden_sizes=[64, 128, 256],
        depths=[2, 2, 2],
    ),
    "hf-convnext": _image_network(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        hidden_sizes=[32, 64, 96, 128],
        depths=[2, 2, 2, 2],
    ),
    "hf-bert": _language_network(
        "BertForMaskedLM",
        "BertConfig",
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
    ),
    "hf-llama": _language_network(
        "LlamaForCausalLM",
        "LlamaConfig",
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=128,
    ),
}


@torch.no_grad()
def _vary(model: nn.Module, example: Tensor | dict[str, Tensor]) -> nn.Module:
    """Spreads constant parameters, and gives batch norms the statistics of ``example``."""
    for parameter in model.parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            if float(parameter.flatten()[0]) >= 0.5:
                nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                nn.init.normal_(parameter, std=0.1)
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    outputs(model, example)
    return model.eval()

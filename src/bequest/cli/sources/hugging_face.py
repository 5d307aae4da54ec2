"""``hf:ID``: networks of transformers; what they read stands in files beside their weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from bequest.cli.inputs import InputForm
from bequest.cli.sources.base import source
from bequest.cli.sources.library import imported, made, reason
from bequest.errors import ModelError, UsageError

_TOKENS = 128
"""Length of a text that a language network is shown where nobody says another."""


@source("hf:ID")
def open_hugging_face(word: str, published: bool) -> tuple[nn.Module, InputForm]:
    """A network of transformers: an ID on the Hugging Face Hub, or a folder with config.json.

    Code that lies beside the weights is never run.

    Args:
        word: what stands behind ``hf:``.
        published: load the weights; else they are random.

    Raises:
        UsageError: the folder has no config.json.
        MissingExtraError: transformers is not installed.
        ModelError: the Hub has no such network or can't be reached; the network's class isn't part
            of transformers, or its weights don't fit it.
    """
    spec = f"hf:{word}"
    transformers = imported("transformers", "hf", spec)
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    if word.startswith((".", "/", "~")) and not Path(word, "config.json").is_file():
        raise UsageError(f"MODEL: {spec}: expected a folder with a config.json in it, found none")
    try:
        config = transformers.AutoConfig.from_pretrained(word, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"{spec}: expected a folder with a readable config.json, or a network on the Hugging "
            f"Face Hub; found none: {reason(error)}. Where the Hub can't be reached, give a "
            "folder: hf:./FOLDER"
        ) from error
    named = (config.architectures or ["AutoModel"])[0]
    try:
        kind = getattr(transformers, named)
    except (AttributeError, ImportError) as error:
        raise ModelError(
            f"{spec} is of the class {named}, which transformers {transformers.__version__} does "
            f"not have or can't load here; code from beside the weights is never run. "
            f"{reason(error)}{_together(reason(error))}"
        ) from error
    with made(spec, published):
        model = _from_hub(kind, word, config) if published else _random(kind, config)
    return model, _form_of(transformers, word, model)


def _together(cause: str) -> str:
    """What to do where transformers fails at torchvision, which it imports for pictures."""
    if "torchvision" not in cause:
        return ""
    return ". Install the builds of torch and torchvision that belong together, or no torchvision"


def _from_hub(kind: Any, word: str, config: Any) -> nn.Module:
    model: nn.Module
    model, found = kind.from_pretrained(
        word, config=config, use_safetensors=True, output_loading_info=True
    )
    if found["missing_keys"]:
        missing = ", ".join(sorted(found["missing_keys"])[:3])
        raise ModelError(f"hf:{word}: the weights lack tensors of the network, such as {missing}")
    return model


def _random(kind: Any, config: Any) -> nn.Module:
    make: Callable[..., nn.Module] = kind.from_config if hasattr(kind, "from_config") else kind
    return make(config)


def _form_of(transformers: Any, word: str, model: nn.Module) -> InputForm:
    """Images as the processor's file says, or a text of tokens; else unknown."""
    config: Any = model.config
    if model.main_input_name == "input_ids":
        longest = getattr(config, "max_position_embeddings", _TOKENS)
        return InputForm(size=(min(_TOKENS, longest),), vocabulary=config.vocab_size)
    if model.main_input_name != "pixel_values":
        return InputForm()
    try:
        held, _ = transformers.ImageProcessingMixin.get_image_processor_dict(word)
    except Exception:  # weights without a word on their images: --mean and --std have to tell
        held = {}
    resized = _side(held.get("size"))
    cropped = _side(held.get("crop_size")) if held.get("do_center_crop") else None
    side = cropped or resized or _side(getattr(config, "image_size", None))
    crop = cropped / resized if cropped and resized else held.get("crop_pct") or 1.0
    resample = Image.Resampling(held.get("resample", Image.Resampling.BILINEAR))
    return InputForm(
        size=None if side is None else (getattr(config, "num_channels", 3), side, side),
        mean=tuple(held["image_mean"]) if "image_mean" in held else None,
        std=tuple(held["image_std"]) if "image_std" in held else None,
        crop=crop,
        interpolation=resample.name.lower(),
    )


def _side(size: object) -> int | None:
    """224 of ``224``, ``[224, 224]``, ``{"height": 224, ...}`` or ``{"shortest_edge": 224}``."""
    if isinstance(size, Mapping):
        size = size.get("height", size.get("shortest_edge"))
    if isinstance(size, list | tuple):
        size = size[0]
    return size if isinstance(size, int) else None

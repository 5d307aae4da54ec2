"""``timm:NAME``, ``torchvision:NAME``, ``hf:ID``: networks of other libraries, and what they read.

Size, normalisation and crop come from the library's own record of the network. Weights are read
without pickle: as safetensors, or by ``torch.load`` restricted to tensors.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from bequest.cli.inputs import InputForm
from bequest.errors import BequestError, MissingExtraError, ModelError, UsageError

_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_TOKENS = 128
"""Length of a text that a language network is shown where nobody says another."""


def open_timm(word: str, pretrained: bool) -> tuple[nn.Module, InputForm]:
    """``NAME`` or ``NAME,num_classes=10,...`` of timm; settings go to ``timm.create_model``.

    Args:
        word: what stands behind ``timm:``.
        pretrained: fetch the published weights; else they are random.

    Raises:
        UsageError: timm has no such network, or a setting can't be read.
        MissingExtraError: timm is not installed.
        ModelError: the weights can't be fetched, or timm refuses.
    """
    spec = f"timm:{word}"
    timm = _imported("timm", "vision", spec)
    name, settings = _settings(word)
    if not timm.is_model(name):
        raise UsageError(_unknown(spec, name, timm.list_models()))
    with _made(spec, pretrained):
        model = timm.create_model(name, pretrained=pretrained, **settings)
        found = timm.data.resolve_model_data_config(model)
    form = InputForm(
        size=tuple(found["input_size"]),
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
        crop=found["crop_pct"],
        interpolation=found["interpolation"],
    )
    return model, form


def open_torchvision(word: str, pretrained: bool) -> tuple[nn.Module, InputForm]:
    """``NAME`` or ``NAME,num_classes=10,...`` of torchvision; weights are its default ones.

    Args:
        word: what stands behind ``torchvision:``.
        pretrained: fetch the published weights; else they are random.

    Raises:
        UsageError: torchvision has no such network, or a setting can't be read.
        MissingExtraError: torchvision is not installed.
        ModelError: the weights can't be fetched, or torchvision refuses.
    """
    spec = f"torchvision:{word}"
    models = _imported("torchvision.models", "vision", spec)
    name, settings = _settings(word)
    if name not in models.list_models():
        raise UsageError(_unknown(spec, name, models.list_models()))
    with _made(spec, pretrained):
        published = models.get_model_weights(name).DEFAULT
        transforms = published.transforms()
        model = models.get_model(name, weights=published if pretrained else None, **settings)
    crop = getattr(transforms, "crop_size", None)
    if crop is None:
        return model, InputForm()  # a detector's inputs, say; --size has to tell
    form = InputForm(
        size=(len(transforms.mean), crop[0], crop[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        crop=crop[0] / transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
    )
    return model, form


def open_hugging_face(word: str, pretrained: bool) -> tuple[nn.Module, InputForm]:
    """A network of transformers: an ID on the Hugging Face Hub, or a folder with config.json.

    Code that lies beside the weights is never run. A language model keeps no cache, which would
    be further outputs.

    Args:
        word: what stands behind ``hf:``.
        pretrained: load the weights; else they are random.

    Raises:
        UsageError: the folder has no config.json.
        MissingExtraError: transformers is not installed.
        ModelError: the Hub has no such network or can't be reached; the network's class isn't part
            of transformers, or its weights don't fit it.
    """
    spec = f"hf:{word}"
    transformers = _imported("transformers", "hf", spec)
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    if word.startswith((".", "/", "~")) and not Path(word, "config.json").is_file():
        raise UsageError(f"MODEL: {spec}: expected a folder with a config.json in it, found none")
    try:
        config = transformers.AutoConfig.from_pretrained(word, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"{spec}: expected a folder with a readable config.json, or a network on the Hugging "
            f"Face Hub; found none: {_reason(error)}. Where the Hub can't be reached, give a "
            "folder: hf:./FOLDER"
        ) from error
    if hasattr(config, "use_cache"):
        config.use_cache = False
    named = (config.architectures or ["AutoModel"])[0]
    try:
        kind = getattr(transformers, named)
    except (AttributeError, ImportError) as error:
        raise ModelError(
            f"{spec} is of the class {named}, which transformers {transformers.__version__} does "
            f"not have or can't load here; code from beside the weights is never run. "
            f"{_reason(error.__cause__ or error)}"
        ) from error
    with _made(spec, pretrained):
        model = _from_hub(kind, word, config) if pretrained else _random(kind, config)
    return model, _form_of(transformers, word, model)


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


def _imported(module: str, extra: str, spec: str) -> Any:
    """The library; it is imported only where a MODEL asks for it."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or package, extra, f"MODEL '{spec}'") from error
    except Exception as error:  # e.g. torchvision beside a PyTorch that it wasn't built for
        raise ModelError(
            f"{spec}: {package} is installed but can't be imported beside PyTorch "
            f"{torch.__version__}: {_reason(error)}. Install the builds that belong together"
        ) from error


def _settings(word: str) -> tuple[str, dict[str, Any]]:
    """``NAME,KEY=VALUE,...`` → the name, and values that are numbers, booleans or None."""
    name, *pairs = word.split(",")
    settings = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if not key.isidentifier() or not isinstance(value, int | float | None):
            raise UsageError(
                f"MODEL: expected {name},KEY=NUMBER such as {name},num_classes=10; found {pair!r}"
            )
        settings[key] = value
    return name, settings


def _unknown(spec: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"MODEL: {spec.partition(':')[0]} has no network '{name}'.{hint}"


@contextmanager
def _made(spec: str, pretrained: bool) -> Iterator[None]:
    """Fetched files are read as tensors alone; what goes wrong is said in one line."""
    before = os.environ.get(_TENSORS_ONLY)
    os.environ[_TENSORS_ONLY] = "1"
    try:
        yield
    except BequestError:
        raise
    except Exception as error:
        if not pretrained:
            raise ModelError(f"{spec} can't be made: {_reason(error)}") from error
        raise ModelError(
            f"{spec}: its published weights can't be fetched or read: {_reason(error)}. Give "
            "trained weights with --weights FILE (.safetensors or .pth)"
        ) from error
    finally:
        if before is None:
            del os.environ[_TENSORS_ONLY]
        else:
            os.environ[_TENSORS_ONLY] = before


def _reason(error: BaseException) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return f"{type(error).__name__}: {next(filter(None, lines), '')[:200]}".rstrip(". ")

"""A folder that transformers loads by itself: tensors, and a configuration of their widths.

``from_pretrained`` builds a class of its configuration alone. What no configuration can say is
refused by name; what is written was loaded back and compared before it appears.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bequest.artifact.folder import as_path, require_empty, staged
from bequest.artifact.inexpressible import refusal
from bequest.artifact.plan import Plan
from bequest.artifact.settings import expressions, objection, shapes, situations
from bequest.errors import ArtifactError, ModelError, UsageError
from bequest.execution.caches import is_pretrained
from bequest.execution.copies import private_copy
from bequest.execution.modules import first_lines
from bequest.execution.paging import let_go_behind
from bequest.surgery.program import Program

CARD = "README.md"
CLOSE = 1e-5
"""Largest difference of results after loading, relative to the largest (absolute below 1)."""

_TOKENISERS = (
    "tok*.json tok*.model tok*.bin tok*.txt vocab* merges.txt special_tokens_map.json "
    "added_tokens.json *.tiktoken spiece.model sentencepiece* chat_template* normalizer.json "
    "preprocessor_config.json processor_config.json video_preprocessor_config.json"
).split()
"""Files beside a network's weights that say how texts, images and sounds become its inputs."""


def save_pretrained(
    directory: str | os.PathLike[str], model: nn.Module, plan: Plan, card: str
) -> None:
    """Writes a folder for ``from_pretrained`` of transformers, all of it or nothing.

    Args:
        directory: a folder that is empty or does not exist yet.
        model: the pruned network of one of transformers' own classes.
        plan: the plan that made it.
        card: the text of its README.md.

    Raises:
        UsageError: the folder has files in it, or the model isn't one of transformers'.
        ModelError: no configuration of its class says its widths; the message names what they are.
        ArtifactError: the files could not be written (disk full, no permission).
    """
    target = as_path(directory, "save_pretrained")
    require_pretrained(model)
    try:
        require_empty(target)
        with staged(target) as staging:
            _write(staging, model, plan)
            _copy_tokeniser(model, staging)
            (staging / CARD).write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{target} could not be written, nothing was left: {error}") from error


def require_pretrained(model: nn.Module) -> None:
    """Refuses what transformers has no class for.

    Raises:
        UsageError: another library's network, or one whose code lies beside its weights.
        ModelError: a program.
    """
    if isinstance(model, Program):
        raise ModelError(
            "save_pretrained: the pruned network is a program, as sizes in the code of its class "
            "don't let it hold the new widths; no class of transformers loads it. Use save(), or "
            "prune the layers whose widths its configuration says"
        )
    kind = type(model)
    if not is_pretrained(model) or not kind.__module__.startswith("transformers."):
        raise UsageError(
            f"save_pretrained: expected a network of one of transformers' own classes, found "
            f"{kind.__module__}.{kind.__qualname__}; save() saves any network"
        )


def _write(staging: Path, model: Any, plan: Plan) -> None:
    """The first configuration of which the class builds the network that was pruned.

    Raises:
        ModelError: there is none.
    """
    seen = list(situations(model, plan.surgery))
    shares = {group.kept / group.size for group in plan.groups}
    refused, different = list[str](), list[str]()
    for situation in seen:
        for config, changes in expressions(situation, shares):
            named = ", ".join(f"{name}={value}" for name, value in changes.items())
            if (problem := objection(config)) is not None:
                refused.append(f"{named}: {problem}")
            elif (problem := _tried(staging, model, config)) is None:
                return
            else:
                different.append(f"{named}: {problem}")
    raise ModelError(refusal(seen, plan, refused or different))


def _tried(staging: Path, model: Any, config: Any) -> str | None:
    """Saves, loads and compares; what differs, in words."""
    config.dtype = model.dtype
    copy: Any = private_copy(model)
    copy.config = config
    try:
        with _quiet():
            copy.save_pretrained(staging, state_dict=_with_all(copy, config))
            loaded, found = type(model).from_pretrained(
                staging, output_loading_info=True, dtype=model.dtype, local_files_only=True
            )
    except (OSError, SafetensorError):
        raise
    except Exception as error:  # whatever transformers says to what it is given
        return f"{type(error).__name__}: {first_lines(error)}"
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[kind]:
            return f"{kind.replace('_', ' ')}: {', '.join(sorted(map(str, found[kind]))[:3])}"
    distance = _distance(loaded, copy)
    if not distance <= max(CLOSE, float(torch.finfo(model.dtype).eps)):
        return f"loaded again its results differ by {distance:.1e}"
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of transformers, and what it says of settings that it doesn't know."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _with_all(copy: Any, config: Any) -> dict[str, Tensor]:
    """The network's tensors, and zeros for biases that the class adds beside the new ones."""
    held: dict[str, Tensor] = copy.state_dict()
    wanted = shapes(copy, config)
    example = next(iter(held.values()))
    lacking = {name: shape for name, shape in wanted.items() if name not in held}
    return {**held, **{name: example.new_zeros(shape) for name, shape in lacking.items()}}


@torch.no_grad()
def _distance(loaded: nn.Module, saved: Any) -> float:
    inputs, again = _inputs(saved), let_go_behind(private_copy(loaded))
    pairs = zip(*(_results(one, inputs) for one in (again, saved)), strict=True)
    return max(
        float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
        for found, wanted in pairs
    )


def _results(model: nn.Module, inputs: dict[str, Tensor]) -> Iterable[Tensor]:
    results = pytree.tree_leaves(model(**inputs))
    return [one.double() for one in results if isinstance(one, Tensor) and one.is_floating_point()]


def _inputs(model: Any) -> dict[str, Tensor]:
    """What a network of transformers is shown to compare it: tokens, an image or a sound.

    Raises:
        ModelError: it reads something else.
    """
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or 16
    generator = torch.Generator().manual_seed(0)

    def tokens() -> Tensor:
        return torch.randint(config.vocab_size, (2, min(16, longest)), generator=generator)

    def noise(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator).to(model.dtype)

    match model.main_input_name:
        case "input_ids":
            inputs = {"input_ids": tokens()}
        case "pixel_values":
            size = model.config.image_size
            sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
            inputs = {"pixel_values": noise(model.config.num_channels, *sides)}
        case "input_features":
            inputs = {"input_features": noise(config.num_mel_bins, 2 * config.max_source_positions)}
        case other:
            raise ModelError(
                f"save_pretrained: expected a network that reads tokens, an image or a sound, "
                f"found one that reads {other}: what it computes can't be compared; use save()"
            )
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens()
    return {name: value.to(model.device) for name, value in inputs.items()}


def _copy_tokeniser(model: Any, staging: Path) -> None:
    """The tokeniser's files from the folder that the dense network was loaded from, if it was."""
    source = Path(model.name_or_path or "")
    if not model.name_or_path or not source.is_dir():
        return
    for pattern in _TOKENISERS:
        for file in source.glob(pattern):
            if file.is_file() and not (staging / file.name).exists():
                shutil.copyfile(file, staging / file.name)

"""Reads published weights into a network by name, without executing anything in the file."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bequest.errors import ArtifactError, UsageError
from bequest.zoo.checkpoint import fitted, listed, unwrapped

_TORCH_SUFFIXES = (".pth", ".pt", ".th", ".tar", ".bin", ".ckpt")


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Loads a weights file into ``model``, in place, matching every tensor by name.

    A checkpoint that holds the weights under a usual key ("state_dict", "model_state_dict",
    "model", ...) is unwrapped. One prefix that all names have ("module.", "model.", "net.",
    "ema_model.module.", ...) is taken off if what is left fits exactly, and so is "_orig_mod."
    wherever it stands. Averages of the weights (EMA) are read where there are no others beside
    them. Batch-norm step counters (``num_batches_tracked``), which old files lack, may be missing,
    and so may the second name of a tensor that two modules share. The model is untouched unless
    the whole file fits.

    Args:
        model: the network; its device and dtypes stay.
        path: a ``.safetensors`` file, or a file of ``torch.save`` (``.pth``, ``.pt``, ``.th``,
            ``.tar``, ``.bin``, ``.ckpt``) that can be read without running code.

    Raises:
        UsageError: there is no such file, or its suffix is none of these.
        ArtifactError: the file is truncated, unreadable or needs pickle; tensors are missing,
            unexpected, of another shape or kind; a value is NaN or infinite.
    """
    path = Path(path)
    own: dict[str, Tensor] = model.state_dict(keep_vars=True)
    given = fitted(own, unwrapped(_read(path), path), path)
    _check_tensors(own, given, path)
    model.load_state_dict(given, strict=False)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"weights: expected a file, found nothing at {path}")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _read_safetensors(path)
    if suffix in _TORCH_SUFFIXES:
        return _read_torch(path)
    raise UsageError(
        f"weights: expected a .safetensors file or one of {', '.join(_TORCH_SUFFIXES)}, "
        f"found {path.name}"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is not a readable safetensors file: {error}") from error


def _read_torch(path: Path) -> Any:
    if _is_compressed(path):
        raise ArtifactError(
            f"{path} is a compressed archive; torch.save never compresses. Unpack it first."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file surfaces as RuntimeError, EOFError, KeyError ...
        if _needs_pickle(path, error):
            function = re.search(r"GLOBAL (\S+)", str(error))
            needed = f" ({function[1]})" if function else ""
            raise ArtifactError(
                f"{path} holds more than tensors{needed} and would run code when loaded. "
                "If you trust it, load it yourself, save its state dict with "
                "safetensors.torch.save_file, and use that file."
            ) from error
        reason = f"{type(error).__name__} {str(error).partition('. ')[0]}".strip()
        raise ArtifactError(f"{path} is truncated or no file of torch.save: {reason}") from error


def _needs_pickle(path: Path, error: Exception) -> bool:
    """True if a whole archive or pickle was refused for its contents, not for damage."""
    with path.open("rb") as stream:
        is_pickle = stream.read(2).startswith((b"PK", b"\x80"))
    refused = isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error)
    return is_pickle and refused


def _is_compressed(path: Path) -> bool:
    """True for an archive that would unpack to more bytes than the file has.

    TorchScript compresses the notes beside its code; such a file is refused for what it is.
    """
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any("/code/" in entry.filename for entry in entries):
                return False
            return sum(entry.file_size for entry in entries) > path.stat().st_size
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"{path} is a damaged archive: {error}") from error


def _check_tensors(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    shapes = [
        f"{name} (expected {tuple(own[name].shape)}, found {tuple(value.shape)})"
        for name, value in given.items()
        if own[name].shape != value.shape
    ]
    if shapes:
        raise ArtifactError(
            f"{path} is for another network (other widths or number of classes?); "
            f"shapes differ: {listed(shapes)}"
        )
    for name, value in given.items():
        dense = value.layout == torch.strided and not value.is_meta
        if not dense or own[name].is_floating_point() != value.is_floating_point():
            raise ArtifactError(
                f"{path}: {name}: expected dense {own[name].dtype}, found {value.dtype} "
                f"({value.layout}, {value.device}); quantised, sparse and complex weights are "
                "not supported"
            )
        if not bool(value.to(own[name].dtype).isfinite().all()):
            raise ArtifactError(f"{path}: {name} holds NaN or infinite values")

"""The state of a training run in one file, which is replaced as a whole or not at all.

A safetensors file whose header carries what is no tensor, as JSON. Nothing in it is executed when
it is read, and a checksum over the tensors tells damage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from bequest.artifact import fields
from bequest.atomic import replacing
from bequest.errors import ArtifactError, UsageError

_VERSION = 1


@dataclass(frozen=True)
class EpochRecord:
    """What one pass over the images came to; a line of the log.

    Attributes:
        epoch: from 1.
        loss: mean cross-entropy over the epoch's steps.
        penalty: mean of what the penalty added.
        lr: learning rate of the last step.
        seconds: that it took, from its start or from the resumption.
        top1: on the validation images, in percent; None without.
    """

    epoch: int
    loss: float
    penalty: float
    lr: float
    seconds: float
    top1: float | None


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        losses: cross-entropy of each step of the current epoch.
        penalties: what the penalty added in each of them.
        history: the epochs that are complete.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    penalties: list[float] = field(default_factory=list)
    history: list[EpochRecord] = field(default_factory=list)


def write_checkpoint(
    path: Path, identity: Mapping[str, Any], progress: Progress, tensors: Mapping[str, Tensor]
) -> None:
    """Replaces the file by one of this state.

    Args:
        path: the file.
        identity: what a run has to agree in to go on from here; JSON values.
        progress: how far it is.
        tensors: everything else by name.

    Raises:
        ArtifactError: it can't be written; the file that was there is untouched.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    document = {
        "version": _VERSION,
        "identity": identity,
        "progress": asdict(progress),
        "checksum": _checksum(held),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A copy each: safetensors refuses tensors that share memory.
        copies = {name: tensor.clone() for name, tensor in held.items()}
        with replacing(path) as partial:
            partial.write_bytes(to_safetensors(copies, metadata={"bequest": json.dumps(document)}))
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} can't be written: {error}") from error


def read_checkpoint(path: Path, identity: Mapping[str, Any]) -> tuple[Progress, dict[str, Tensor]]:
    """The state in a file of :func:`write_checkpoint`.

    Raises:
        ArtifactError: the file is unreadable, truncated or altered, or no training checkpoint.
        UsageError: there is no file, or it is of a run of another identity; the message names what
            differs.
    """
    if not path.is_file():
        raise UsageError(f"resume: expected the checkpoint of an earlier run, found no {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = json.loads(metadata["bequest"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path} is no readable training checkpoint: {error}. It was truncated or altered; "
            "remove it to begin anew"
        ) from error
    try:
        version, found, progress, checksum = fields.record(
            document, "the header", "version", "identity", "progress", "checksum"
        )
        if version != _VERSION:
            fields.refuse("version", f"{_VERSION}", version)
        if checksum != _checksum(tensors):
            fields.refuse("the tensors", "those that were saved", "others; the file was altered")
        _require_same(identity, fields.mapping(found, "identity"))
        return _progress(progress), tensors
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def _require_same(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(expected))
    different = [
        f"{name} (then {found.get(name)!r}, now {plain.get(name)!r})"
        for name in dict.fromkeys((*plain, *found))
        if plain.get(name) != found.get(name)
    ]
    if different:
        raise UsageError(
            f"resume: the checkpoint is of another run; different: {', '.join(different)}. Resume "
            "with what it was started with, or begin anew in another folder"
        )


def _progress(value: object) -> Progress:
    step, losses, penalties, history = fields.record(
        value, "progress", "step", "losses", "penalties", "history"
    )
    return Progress(
        step=fields.integer(step, "step"),
        losses=[fields.finite(v, "losses") for v in fields.sequence(losses, "losses")],
        penalties=[fields.finite(v, "penalties") for v in fields.sequence(penalties, "penalties")],
        history=[_epoch(v) for v in fields.sequence(history, "history")],
    )


def _epoch(value: object) -> EpochRecord:
    epoch, loss, penalty, lr, seconds, top1 = fields.record(
        value, "history", "epoch", "loss", "penalty", "lr", "seconds", "top1"
    )
    return EpochRecord(
        epoch=fields.integer(epoch, "epoch", 1),
        loss=fields.finite(loss, "loss"),
        penalty=fields.finite(penalty, "penalty"),
        lr=fields.finite(lr, "lr"),
        seconds=fields.finite(seconds, "seconds"),
        top1=None if top1 is None else fields.finite(top1, "top1"),
    )


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

"""Trains a network on the hypersphere: what a call takes, where its files lie, its processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from bequest.artifact.folder import require_empty
from bequest.data import ImageLoader
from bequest.errors import MissingExtraError, UsageError
from bequest.hypersphere.checkpoint import EpochRecord
from bequest.hypersphere.recipe import Recipe
from bequest.hypersphere.run import CHECKPOINT, Run, Trained

FOLDER = "training"
"""Where, in the folder of the trained network, checkpoints and log are kept."""


def require_folder(out: Path, *, resume: bool) -> None:
    """Looks, before any work, whether a run can put its files into ``out``.

    Raises:
        UsageError: the folder has files of something else, a checkpoint that ``resume`` does not
            ask for, or none although it does.
    """
    require_empty(out, FOLDER)
    checkpoint = out / FOLDER / CHECKPOINT
    if resume and not checkpoint.is_file():
        raise UsageError(
            f"resume: expected the checkpoint of an earlier run, found no {checkpoint}"
        )
    if not resume and checkpoint.exists():
        raise UsageError(f"{checkpoint} is of an earlier run; resume it, or choose another folder")


def train(
    model: nn.Module,
    images: ImageLoader,
    recipe: Recipe,
    folder: str | Path,
    *,
    validation: ImageLoader | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    accelerator: str = "cpu",
    devices: int = 1,
    nodes: int = 1,
    report: Callable[[EpochRecord], None] = lambda _: None,
    progress: bool = False,
) -> Trained:
    """Trains a copy of ``model`` by ``recipe``.

    Every draw (order of the images, augmentation, dropout) follows from the recipe's seed and the
    step, so that a run that was interrupted ends as one that was not, and on the CPU to the bit.
    Batches are shared between the processes; a network with batch normalisation normalises each
    share on its own.

    Args:
        model: gives logits (B, K); pretrained or not; it is not changed.
        images: the labelled images.
        recipe: what to do.
        folder: holds ``checkpoint.safetensors`` and ``log.jsonl``, a line per epoch. A run that
            stops for a non-finite loss leaves ``stopped.safetensors`` as well.
        validation: images whose accuracy is taken after every epoch.
        resume: go on from the folder's checkpoint.
        checkpoint_every: steps between checkpoints; None = once an epoch.
        accelerator: "cpu", "cuda" or another that Lightning Fabric knows.
        devices: processes per machine. They are started by ``torchrun``, or by this call, which
            then runs the calling script once more per process.
        nodes: machines.
        report: called with every epoch's record.
        progress: show a bar, if the standard error is a terminal.

    Returns:
        The trained network with its history.

    Raises:
        UsageError: the batch can't be shared evenly, there are fewer images than a batch has, or
            there is no checkpoint to resume, or one of another run.
        DataError: a label is none of the model's classes.
        ArtifactError: the checkpoint is damaged.
        NonFiniteLossError: the loss became NaN or infinite.
        MissingExtraError: Lightning Fabric or Kornia is not installed.
    """
    return Run(
        model,
        images,
        recipe,
        Path(folder),
        validation,
        checkpoint_every,
        _fabric(recipe, accelerator, devices, nodes),
        report,
        progress,
    ).train(resume)


def _fabric(recipe: Recipe, accelerator: str, devices: int, nodes: int) -> Any:
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingExtraError("lightning-fabric", "train", "training") from error
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=recipe.precision,  # type: ignore[arg-type]  # checked by the recipe
        )
    except Exception as error:  # each accelerator has its own
        raise UsageError(
            f"--accelerator {accelerator}, --devices {devices}, --nodes {nodes}: expected what "
            f"Lightning Fabric can start here: {str(error).splitlines()[0]}"
        ) from error
    fabric.launch()
    return fabric

"""A training run on one of its processes: the same steps, interrupted or not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bequest.artifact.fingerprint import fingerprint
from bequest.atomic import replacing
from bequest.data import ImageLoader
from bequest.errors import BequestError, DataError, UsageError
from bequest.execution.copies import duplicate
from bequest.execution.progress import tracked
from bequest.hypersphere.augmentation import Augmentation
from bequest.hypersphere.checkpoint import (
    EpochRecord,
    Progress,
    read_checkpoint,
    write_checkpoint,
)
from bequest.hypersphere.convert import convert, deconvert
from bequest.hypersphere.layers import to_sphere
from bequest.hypersphere.penalty import HypersphericalPenalty
from bequest.hypersphere.recipe import Recipe
from bequest.measure import evaluate

CHECKPOINT = "checkpoint.safetensors"
STOPPED = "stopped.safetensors"
LOG = "log.jsonl"


class NonFiniteLossError(BequestError):
    """The loss became NaN or infinite; the message says at which step and where the state is."""


@dataclass(frozen=True)
class Trained:
    """What :func:`bequest.hypersphere.train` returns.

    Attributes:
        model: the trained network: plain layers, on the CPU, in evaluation mode.
        history: every epoch, those before an interruption too.
        is_main: True in one of the processes, which is the one to save and to print.
    """

    model: nn.Module
    history: tuple[EpochRecord, ...]
    is_main: bool


class Run:
    """One training run, as this process takes part in it; made by ``bequest.hypersphere.train``."""

    def __init__(
        self,
        model: nn.Module,
        images: ImageLoader,
        recipe: Recipe,
        folder: Path,
        validation: ImageLoader | None,
        checkpoint_every: int | None,
        fabric: Any,
        report: Callable[[EpochRecord], None],
        progress: bool,
    ) -> None:
        self.recipe, self.images, self.folder = recipe, images, folder
        self.validation, self.fabric, self.report = validation, fabric, report
        self.shown = progress and fabric.is_global_zero
        self.steps_per_epoch = images.count // recipe.batch_size
        if not self.steps_per_epoch:
            raise UsageError(
                f"batch_size: expected at most the {images.count} images, found {recipe.batch_size}"
            )
        if recipe.batch_size % fabric.world_size:
            raise UsageError(
                f"batch_size: expected a multiple of the {fabric.world_size} processes, found "
                f"{recipe.batch_size}"
            )
        self.steps = self.steps_per_epoch * recipe.epochs
        self.checkpoint_every = checkpoint_every
        share = recipe.batch_size // fabric.world_size
        self.share = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
        self.augment = Augmentation(recipe.augment, images.preprocessing.size)

        started = convert(model) if recipe.hyperspherical else duplicate(model)
        self.module = _laid_out(started, torch.channels_last).train()
        self.optimizer = torch.optim.SGD(
            _parameter_groups(self.module, recipe.weight_decay),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
        )
        self.penalty = HypersphericalPenalty(
            recipe.sparsity,
            recipe.penalty,
            warmup=round(recipe.penalty_warmup * self.steps),
            form=recipe.form,
            mask=recipe.mask,
            skip=recipe.skip,
            push=recipe.push,
        )
        self.identity = {
            **recipe.to_json(),
            "architecture": fingerprint(model),
            "images": images.count,
        }
        self.wrapped, self.stepper = fabric.setup(self.module, self.optimizer)
        self.progress = Progress()

    def train(self, resume: bool) -> Trained:
        """From the start, or from the folder's checkpoint, to the end."""
        if resume:
            self._load(*read_checkpoint(self.folder / CHECKPOINT, self.identity))
        self.fabric.barrier()
        while self.progress.step < self.steps:
            self._epoch()
        model = _laid_out(deconvert(self.module).cpu(), torch.contiguous_format).eval()
        return Trained(model, tuple(self.progress.history), self.fabric.is_global_zero)

    def _epoch(self) -> None:
        """From where the run is to the end of that epoch."""
        started = time.perf_counter()
        epoch, first = divmod(self.progress.step, self.steps_per_epoch)
        remaining = range(first, self.steps_per_epoch)
        name = f"epoch {epoch + 1} of {self.recipe.epochs}"
        for x, y in tracked(self._batches(epoch, first), name, remaining, self.shown):
            self._step(x, y)
            done = self.progress.step
            if self.checkpoint_every and done % self.checkpoint_every == 0:
                self._save(CHECKPOINT)
        state = self.progress
        state.history.append(
            EpochRecord(
                epoch=epoch + 1,
                loss=sum(state.losses) / len(state.losses),
                penalty=sum(state.penalties) / len(state.penalties),
                lr=self.optimizer.param_groups[0]["lr"],
                seconds=round(time.perf_counter() - started, 1),
                top1=None
                if self.validation is None
                else evaluate(self.module, self.validation).top1,
            )
        )
        state.losses, state.penalties = [], []
        self._save(CHECKPOINT)
        if self.fabric.is_global_zero:
            self._log()
            self.report(state.history[-1])

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the epoch's batches from number ``first`` on."""
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(self.images.count)
        size = self.recipe.batch_size
        starts = range(first * size, self.steps_per_epoch * size, size)
        return self.images.batches(order[start : start + size][self.share] for start in starts)

    def _step(self, x: Tensor, y: Tensor) -> None:
        recipe, step = self.recipe, self.progress.step
        seed = int(np.random.SeedSequence((recipe.seed, step)).generate_state(1)[0])
        x = self.augment(x, seed, self.share, recipe.batch_size)
        x = x.to(self.fabric.device, memory_format=torch.channels_last)
        y = y.to(self.fabric.device)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step, self.steps)
        with torch.random.fork_rng():
            torch.manual_seed(seed + self.fabric.global_rank)  # dropout
            output = self.wrapped(x)
        logits = getattr(output, "logits", output)
        if not 0 <= int(y.min()) <= int(y.max()) < logits.shape[-1]:
            raise DataError(
                f"expected labels 0 to {logits.shape[-1] - 1} for a model of {logits.shape[-1]} "
                f"classes, found {int(y.min())} to {int(y.max())}"
            )
        loss = nn.functional.cross_entropy(logits.float(), y)
        added = self.penalty(self.module) if recipe.sparsity else loss.new_zeros(())
        values = self.fabric.all_reduce(torch.stack([loss.detach(), added.detach()]))
        if not values.isfinite().all():
            self._stop(step)
        self.stepper.zero_grad()
        self.fabric.backward(loss + added)
        self.stepper.step()
        to_sphere(self.module)
        self.progress.step += 1
        mean, penalty = values.tolist()
        self.progress.losses.append(mean)
        self.progress.penalties.append(penalty)

    def _stop(self, step: int) -> None:
        self._save(STOPPED)
        raise NonFiniteLossError(
            f"the loss became NaN or infinite at step {step + 1} of {self.steps}. "
            f"The state before that step is in {self.folder / STOPPED}, the last checkpoint in "
            f"{self.folder / CHECKPOINT} if one was written. Try a lower learning rate, or "
            "precision 32-true"
        )

    def _tensors(self) -> dict[str, Tensor]:
        held = {f"model.{name}": t for name, t in self.module.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            buffer = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if buffer is not None:
                held[f"momentum.{name}"] = buffer
        return held | {f"penalty.{name}": t for name, t in self.penalty.state_dict().items()}

    def _save(self, name: str) -> None:
        if self.fabric.is_global_zero:
            write_checkpoint(self.folder / name, self.identity, self.progress, self._tensors())
        self.fabric.barrier()

    def _load(self, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }

        self.progress = progress
        self.module.load_state_dict(part("model."))
        parameters = dict(self.module.named_parameters())
        for name, buffer in part("momentum.").items():
            # empty_like keeps the memory format, on which the order of sums depends
            own = torch.empty_like(parameters[name]).copy_(buffer)
            self.optimizer.state[parameters[name]]["momentum_buffer"] = own
        self.penalty.load_state_dict(part("penalty."), self.module)

    def _log(self) -> None:
        lines = [json.dumps(asdict(record)) for record in self.progress.history]
        with replacing(self.folder / LOG) as partial:
            partial.write_text("\n".join(lines) + "\n")


def _laid_out(module: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    """With its four-dimensional tensors in this order; convolutions are faster channels-last."""
    return module.to(memory_format=memory_format)  # type: ignore[call-overload,no-any-return]


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Directions without weight decay, everything else with it."""
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": 0.0},
        {"params": [], "weight_decay": weight_decay},
    ]
    for name, parameter in module.named_parameters():
        groups[name.rpartition(".")[2] != "direction"]["params"].append(parameter)
    return [group for group in groups if group["params"]]

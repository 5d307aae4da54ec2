"""What ``bequest demo`` does, from the training to the files in its folder."""

from __future__ import annotations

import dataclasses
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from torch import nn

import bequest
from bequest import config, zoo
from bequest.artifact.folder import PLAN, TENSORS
from bequest.cli.digits import NETWORK, Digits, Training, load_digits, loader, trained_network
from bequest.cli.files import write
from bequest.cli.inputs import InputForm
from bequest.cli.output import Output
from bequest.cli.steps import Settings, save_with_origin
from bequest.errors import BequestError, UsageError
from bequest.execution.threads import threads_of_torch
from bequest.measure import Accuracy, evaluate
from bequest.report import sweep_page
from bequest.sweeping import Cell, Comparison, Images, Network, Sweep, sweep

REPORT = "report.html"
_DENSE, _PRUNED, _HELD_OUT = "dense.safetensors", "pruned", "held-out.npz"
_RATIOS = (0.3, 0.5, 0.7)
_CRITERION, _RESTORER, _RATIO = "l2", "regression", 0.5
_SETTINGS = Settings(groups="inner", scope="group", round_to=1, seed=0)


@dataclass(frozen=True)
class Outcome:
    """What the demo found.

    Attributes:
        comparison: every restorer at every ratio.
        saved: the cell whose network was saved.
        reloaded: accuracy of that network after loading it again.
    """

    comparison: Comparison
    saved: Cell
    reloaded: Accuracy

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.comparison.to_json(),
            "saved": self.saved.to_json(),
            "reloaded": dataclasses.asdict(self.reloaded),
        }


def require_demo_folder(out: Path) -> None:
    """Refuses a folder with files that no demo wrote, as the demo replaces its own.

    Raises:
        UsageError: a file, or a folder with other files in it.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out: expected a folder, found the file {out}")
    pruned = out / _PRUNED
    own = {out / name for name in (REPORT, _DENSE, _HELD_OUT, _PRUNED)}
    own |= {pruned / name for name in (TENSORS, PLAN)}
    others = sorted(path.relative_to(out) for path in out.rglob("*") if path not in own)
    if others or pruned.is_symlink():
        raise UsageError(
            f"--out: expected a new folder or that of an earlier demo, found {out} holding "
            f"{', '.join(map(str, others[:3])) or pruned}"
        )


def demonstrate(out: Path, output: Output) -> Outcome:
    """Trains or loads the network, compares all restorers, and writes everything into ``out``.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        BequestError: a file can't be written.
    """
    # One thread is as fast on a network that small, and not slowed down by a busy machine.
    with threads_of_torch(1):
        training = Training()
        digits = load_digits(training)
        network = trained_network(digits, training, output)
        images = loader(*digits.test)
        form = InputForm.of(zoo.entry(NETWORK).preprocessing)
        example = form.example(torch.device("cpu"))
        (comparison,) = sweep(
            Network(
                f"zoo:{NETWORK}",
                network,
                example,
                Images(images, "held-out digits"),
                value_range=form.value_range(),
            ),
            ratios=_RATIOS,
            criteria=[_CRITERION],
            restorers=_restorers(),
            round_to=_SETTINGS.round_to,
            workers=1,
        ).comparisons
        _write(out, digits, network, comparison, training)
        pruned, _ = _SETTINGS.prune(
            network, example, _RATIO, _CRITERION, _RESTORER, value_range=form.value_range()
        )
        save_with_origin(pruned, out / _PRUNED, f"zoo:{NETWORK}", form)
        reloaded = evaluate(bequest.load(out / _PRUNED, zoo.create(NETWORK)), images)
        saved = comparison.cell(_CRITERION, _RESTORER, _RATIO)
        assert saved is not None
        return Outcome(comparison, saved, reloaded)


def _restorers() -> list[str]:
    """All that are registered, plain pruning first."""
    return sorted(config.names("restorer"), key=lambda name: (name != "none", name))


def _write(
    out: Path, digits: Digits, network: nn.Module, comparison: Comparison, training: Training
) -> None:
    archive = io.BytesIO()
    np.savez(archive, x=digits.test[0], y=digits.test[1])
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / _PRUNED).exists():
            shutil.rmtree(out / _PRUNED)
    except OSError as error:
        raise BequestError(f"{out} can't be written: {error}") from error
    write(out / _HELD_OUT, archive.getvalue())
    write(out / _DENSE, to_safetensors(network.state_dict()))
    write(out / REPORT, sweep_page(Sweep((comparison,)), *_notes(digits, training)))


def _notes(digits: Digits, training: Training) -> list[str]:
    return [
        f"Data: scikit-learn's digits, 8x8 pixels, {len(digits.train[0]):,} for training and "
        f"{len(digits.test[0]):,} held out, each class with its share on both sides. Training: "
        f"{training.epochs} epochs of SGD, momentum {training.momentum}, weight decay "
        f"{training.decay}. Widths are not rounded, so that a ratio means what it says."
    ]

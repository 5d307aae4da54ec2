"""How much accuracy do the data-free settings keep on ResNet-56 (CIFAR-10), and what do they cost?

    python -m benchmarks.effort [quick] [default] [long] [real] [SETTING ...] [RATIO ...] [SEED ...]

Those that are named, or all; rows of others stay as they were measured. By the efforts of the
default restorer, over images that it makes up or, with "real", over 256 real training images (at
the default effort where none is named), in four settings. "l1": inner channels of every block, at
one ratio for all groups. "obs": the same by obs. "allocated": by obs, with ratios allocated so that
as many multiply-accumulates stay (``target="macs:..."``). "streams": by obs at one ratio, of the
residual streams as well (``groups="all"``). Developed on test images 0 to 4,999, reported on 5,000
to 9,999; medians of the seeds, CPU seconds of a call with its inputs. Needs the real weights and
images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

import bequest
from benchmarks.record import record, renewed
from benchmarks.subjects import made_up, opened, subject
from bequest.restorers import Regression

RATIOS = (0.3, 0.5, 0.7)
EFFORTS = ("quick", "default", "long")
SETTINGS = {
    "l1": "l1, one ratio",
    "obs": "obs, one ratio",
    "allocated": "obs, allocated",
    "streams": "obs, streams too",
}
REAL = 256
COLUMNS = ("effort", "channels", "ratio", "top-1, median", "least", "most", "seeds", "CPU s")


def main() -> None:
    """Measures the rows asked for and writes results/effort.{json,md}."""
    words = sys.argv[1:]
    seeds = [int(word) for word in words if word.isdigit()] or [0, 1, 2]
    ratios = [ratio for ratio in RATIOS if str(ratio) in words] or list(RATIOS)
    settings = [word for word in SETTINGS if word in words] or list(SETTINGS)
    real = "real" in words
    asked = [word for word in EFFORTS if word in words] or (["default"] if real else [*EFFORTS])
    known = {*EFFORTS, "real", *SETTINGS, *map(str, RATIOS), *map(str, seeds)}
    if unknown := set(words) - known:
        sys.exit(f"expected words out of {', '.join(sorted(known))}; found {', '.join(unknown)}")
    model, entry, images = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", offset=5000
    )
    example = torch.zeros(1, *entry.input_shape)
    left = _macs_left(model, example)

    def measured(
        setting: str, ratio: float, restorer: Regression, data: Any, seed: int
    ) -> list[float]:
        """Top-1 and CPU seconds."""
        cut: dict[str, Any] = {"ratio": ratio, "criterion": "l1" if setting == "l1" else "obs"}
        if setting == "allocated":
            cut = {"target": f"macs:{left[ratio]:.3f}", "criterion": "obs"}
        if setting == "streams":
            cut["groups"] = "all"
        start = time.process_time()
        call: dict[str, Any] = {"restorer": restorer, "data": data, "seed": seed, "round_to": 1}
        one = bequest.prune(model, example, **call, **cut)
        seconds = time.process_time() - start
        return [bequest.evaluate(one.model, images).top1, seconds]

    for word in asked:
        restorer = Regression(effort=word)
        for setting in settings:
            for ratio in ratios:
                found = []
                for seed in seeds:
                    data: Any = opened(entry, "cifar10/train-0.npz", limit=REAL)
                    more = 0.0
                    if not real:
                        data, more = made_up(restorer, model, example, seed)
                    top1, seconds = measured(setting, ratio, restorer, data, seed)
                    found.append((top1, seconds + more))
                inputs = _inputs(word) if real else word
                row = _row(inputs, SETTINGS[setting], ratio, found)
                print(*row, flush=True)
                record(
                    "effort",
                    renewed("effort", [row], key=3),
                    COLUMNS,
                    dense=round(bequest.evaluate(model, images).top1, 2),
                    images="CIFAR-10 test, 5,000 to 9,999",
                    developed_on="CIFAR-10 test, 0 to 4,999",
                    pruned="inner channels of every block, but for the rows that say otherwise; "
                    "round_to=1",
                )


def _inputs(word: str) -> str:
    return f"{REAL} real images" + (f", {word}" if word != "default" else "")


def _macs_left(model: nn.Module, example: Tensor) -> dict[float, float]:
    """Of the multiply-accumulates where every group loses the ratio."""
    left = {}
    for ratio in RATIOS:
        report = bequest.prune(
            model, example, ratio, criterion="l1", restorer="none", round_to=1
        ).report
        left[ratio] = report.after.macs / report.before.macs
    return left


def _row(inputs: str, setting: str, ratio: float, found: list[tuple[float, float]]) -> list[Any]:
    top1, seconds = zip(*found, strict=True)
    numbers = (round(n, 2) for n in (statistics.median(top1), min(top1), max(top1)))
    spent = round(statistics.median(seconds))
    return [inputs, setting, ratio, *numbers, len(top1), spent]


if __name__ == "__main__":
    main()

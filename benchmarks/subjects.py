"""The real networks and images that are measured, from ``$BEQUEST_SHARED``."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

from torch import Tensor, nn

import bequest
from benchmarks.record import shared_folder
from bequest import Pruned
from bequest.calibration.samples import Samples
from bequest.data import ImageLoader
from bequest.restorers import Regression
from bequest.zoo import Entry


def subject(
    name: str, weights: str | Path, data: str, *, offset: int = 0, limit: int | None = None
) -> tuple[nn.Module, Entry, ImageLoader]:
    """A trained network of the zoo with images in its own preprocessing.

    Args:
        name: the zoo's name.
        weights: file below ``weights/``, or an absolute path.
        data: file below ``data/``.
        offset: the first image.
        limit: how many; None = all that follow.
    """
    entry = bequest.zoo.entry(name)
    model = bequest.zoo.create(name).eval()
    bequest.zoo.load_weights(model, shared_folder() / "weights" / weights)
    return model, entry, opened(entry, data, offset=offset, limit=limit)


def opened(entry: Entry, data: str, *, offset: int = 0, limit: int | None = None) -> ImageLoader:
    """The images alone, in the preprocessing of a network of the zoo."""
    return bequest.data.open_images(
        shared_folder() / "data" / data,
        mean=entry.mean,
        std=entry.std,
        size=entry.input_shape,
        batch_size=500,
        offset=offset,
        limit=limit,
    )


@cache
def made_up(
    restorer: Regression, model: nn.Module, example: Tensor, seed: int
) -> tuple[Samples, float]:
    """The inputs that a call without data makes up, once, and the CPU seconds that they took."""
    start = time.process_time()
    samples = restorer.samples(model, example, None, seed)
    return samples, time.process_time() - start


def cut(
    model: nn.Module,
    example: Tensor,
    ratio: float,
    criterion: str,
    restorer: str,
    samples: Samples,
) -> Pruned:
    """Pruned to the channel; ``samples`` are for the restorer "regression" alone."""
    return bequest.prune(
        model,
        example,
        ratio,
        criterion=criterion,
        restorer=restorer,
        data=samples if restorer == "regression" else None,
        round_to=1,
    )

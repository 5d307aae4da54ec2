"""Accuracy and loss of a classifier over a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bequest.errors import DataError, ModelError, UsageError
from bequest.execution.progress import tracked
from bequest.execution.running import evaluation_mode, on_device, placed, run


@dataclass(frozen=True)
class Accuracy:
    """What :func:`evaluate` found.

    Attributes:
        top1: share of the images whose label has the largest logit, in percent.
        top5: share whose label is among the five largest, in percent; None below five classes.
        loss: mean cross-entropy in nats over the images with finite logits; NaN if there are none.
        count: number of images.
        nonfinite: images with a NaN or infinite logit; they count as wrong.
    """

    top1: float
    top5: float | None
    loss: float
    count: int
    nonfinite: int


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Accuracy:
    """Top-1, top-5 and loss of ``model`` over ``loader``.

    The model runs in evaluation mode without gradients; afterwards each of its modules is in the
    mode it was in. A model with one output is read as a binary classifier whose output is the
    logit *before* the sigmoid: class 1 where it is positive.

    Args:
        model: gives logits (B, K), or (B,) or (B, 1) if binary, or an object with ``.logits``.
        loader: gives pairs (inputs, labels); inputs are a tensor, a tuple or a dict, labels (B,)
            integers in 0 ... K - 1. Inputs are moved to the model's device and dtype.
        device: where to run; None = where the model is. For another device a copy is made.
        progress: show a bar, if the standard error is a terminal.

    Raises:
        UsageError: the loader gives something else than pairs, or inputs on which the model fails.
        DataError: the loader is empty; labels are not (B,) integers within the model's outputs.
        ModelError: the model's output is not (B, K).
    """
    model = on_device(model, device)
    total = torch.zeros(4, dtype=torch.float64, device="cpu")  # top-1, top-5, finite, loss
    count = classes = 0
    with evaluation_mode(model):
        for inputs, labels in tracked(pairs(loader), "evaluating", loader, progress):
            logits = logits_of(run(model, placed(inputs, model)))
            classes = logits.shape[1]
            total += _scores(logits, checked_labels(labels, logits).to(logits.device)).cpu()
            count += len(logits)
    if count == 0:
        raise DataError("evaluate: expected at least one image, found an empty loader")
    top1, top5, finite, loss = total.tolist()
    return Accuracy(
        top1=100 * top1 / count,
        top5=100 * top5 / count if classes >= 5 else None,
        loss=loss / finite if finite else float("nan"),
        count=count,
        nonfinite=count - int(finite),
    )


def pairs(loader: Iterable[Any]) -> Iterator[tuple[Any, Tensor]]:
    """The batches of a loader, each checked to be (inputs, labels).

    Raises:
        UsageError: a batch is something else, or there is nothing that could give any.
    """
    if not isinstance(loader, Iterable):
        raise UsageError(
            "expected a loader of batches (inputs, labels), such as a DataLoader or a list, "
            f"found {type(loader).__name__}"
        )
    for batch in loader:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            found = (
                f"{len(batch)} items" if isinstance(batch, tuple | list) else type(batch).__name__
            )
            raise UsageError(f"expected batches (inputs, labels), found {found}")
        yield batch[0], torch.as_tensor(batch[1])


def logits_of(output: Any, *, probabilities: bool = False) -> Tensor:
    """(B, K) with K >= 2, in float32 or wider; a single logit z becomes (0, z).

    Args:
        output: what a model gave.
        probabilities: it lies behind a softmax or sigmoid; a single p becomes (1 - p, p), and
            logarithms are taken.

    Raises:
        ModelError: it is neither (B, K) nor (B,).
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim not in (1, 2) or 0 in logits.shape[1:]:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"expected logits (B, K) from the model, found {found}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).reshape(len(logits), -1)
    if probabilities:
        p = logits.clamp(torch.finfo(logits.dtype).tiny, 1)
        return (torch.cat([1 - p, p], dim=1) if p.shape[1] == 1 else p).log()
    if logits.shape[1] == 1:
        # softmax(0, z) = (1 - sigmoid(z), sigmoid(z)): cross-entropy and decision are the same.
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits


def checked_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """Labels (B,), int64, that fit the logits (B, K).

    Raises:
        DataError: another shape, no integers, or outside 0 ... K - 1.
    """
    count, classes = logits.shape
    if labels.shape not in ((count,), (count, 1)) or labels.is_floating_point():
        raise DataError(
            f"expected {count} integer labels for a batch of {count}, "
            f"found {labels.dtype} {tuple(labels.shape)}"
        )
    labels = labels.reshape(count).long()
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"expected labels 0 to {classes - 1} for a model of {classes} classes, "
            f"found {int(labels.min())} to {int(labels.max())}"
        )
    return labels


def _scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of top-1 and top-5 hits, of images with finite logits, and their summed loss."""
    finite = logits.isfinite().all(dim=1)
    logits, labels = logits[finite], labels[finite]
    largest = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = largest == labels[:, None]
    loss = cross_entropy(logits.double(), labels, reduction="sum")
    return torch.stack([hits[:, 0].sum(), hits.sum(), finite.sum(), loss])

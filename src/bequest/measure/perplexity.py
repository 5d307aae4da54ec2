"""Perplexity of a language model: how many tokens it hesitates between, on average."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bequest.errors import ModelError, UsageError
from bequest.execution.devices import device_of
from bequest.execution.modules import require_module
from bequest.execution.progress import tracked
from bequest.execution.running import evaluation_mode, on_device, run

LOGITS = 2**26
"""Numbers that a batch of windows makes, at most; a window by itself may make more."""

ROUNDING = 1e-3
"""Change of an output, relative to the largest, that half precision may make."""


@dataclass(frozen=True)
class Perplexity:
    """What :func:`perplexity` found.

    Attributes:
        perplexity: exp(loss).
        loss: mean cross-entropy of the next token, in nats.
        top1: share of the tokens that had the largest logit, in percent.
        tokens: number of tokens that were foretold.
        windows: number of windows.
        tokens_per_second: that were read, in windows side by side.
    """

    perplexity: float
    loss: float
    top1: float
    tokens: int
    windows: int
    tokens_per_second: float


def perplexity(
    model: nn.Module,
    tokens: Tensor,
    *,
    window: int = 128,
    stride: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Perplexity:
    """Perplexity of ``model`` over a text, window by window.

    The first token of the text is not foretold. Where windows overlap, each token counts in the
    first window that foretells it; where they don't, neither is the first one of each. What is left
    at the end, less than a stride, is not read. The model runs in evaluation mode without
    gradients; afterwards each of its modules is in the mode it was in.

    Args:
        model: gives logits (batch, length, V), or an object with ``.logits``, of tokens (batch,
            length), each from what stands before it.
        tokens: the text, int64 (n,).
        window: tokens that the model reads at once.
        stride: tokens from one window to the next; None = the window.
        device: where to run; None = where the model is. For another device a copy is made.
        progress: show a bar, if the standard error is a terminal.

    Raises:
        UsageError: ``model`` is no module, the text is shorter than a window, a token is not among
            the model's, or a number is out of range.
        ModelError: the model gives no such logits, or they depend on tokens that come later.
    """
    require_module(model)
    stride = window if stride is None else stride
    _check_numbers(tokens, window, stride)
    model = on_device(model, device)
    rows = tokens.long().unfold(0, window, stride).to(device_of(model))
    new = min(stride, window - 1)
    loss, hits, count = 0.0, 0, 0
    with evaluation_mode(model):
        size = max(1, LOGITS // (window * _vocabulary(model, tokens, rows[:1])))
        start = time.perf_counter()
        batches = torch.split(rows, size)
        for number, batch in enumerate(tracked(batches, "reading", batches, progress)):
            logits, wanted = _logits(run(model, batch), batch)[:, :-1], batch[:, 1:]
            first = _scores(logits[:1], wanted[:1], 0 if number == 0 else window - 1 - new)
            for one in (first, _scores(logits[1:], wanted[1:], window - 1 - new)):
                loss, hits, count = loss + one[0], hits + int(one[1]), count + int(one[2])
        seconds = time.perf_counter() - start
    mean = loss / count
    return Perplexity(
        perplexity=float("inf") if mean >= 700 else exp(mean),
        loss=mean,
        top1=100 * hits / count,
        tokens=count,
        windows=len(rows),
        tokens_per_second=rows.numel() / seconds,
    )


def _check_numbers(tokens: Tensor, window: int, stride: int) -> None:
    whole = all(isinstance(one, int) for one in (window, stride))
    if not whole or window < 2 or not 1 <= stride <= window:
        raise UsageError(
            "perplexity: expected a window of at least 2 tokens and a stride from 1 to the window, "
            f"found window {window!r} and stride {stride!r}"
        )
    if not isinstance(tokens, Tensor) or tokens.ndim != 1 or not _counts(tokens.dtype):
        of = f"{tokens.dtype} {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else None
        found = of or type(tokens).__name__
        raise UsageError(f"perplexity: expected a text of tokens, int64 (n,), found {found}")
    if len(tokens) < window:
        raise UsageError(
            f"perplexity: expected a text of at least one window, {window} tokens, found "
            f"{len(tokens)}; give more text, or a smaller window"
        )


def _counts(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _vocabulary(model: nn.Module, tokens: Tensor, row: Tensor) -> int:
    """Number of tokens that the model foretells, all earlier ones from those before them.

    Raises:
        UsageError, ModelError: as :func:`perplexity` says.
    """
    zeros = torch.zeros_like(row)
    before = _logits(run(model, zeros), zeros)
    zeros[:, -1] = 1
    after = _logits(run(model, zeros), zeros)
    gap = (before - after)[:, :-1].abs().amax()
    if gap > ROUNDING * before.abs().amax():
        raise ModelError(
            f"perplexity: {type(model).__name__} sees the tokens that it is asked to foretell: its "
            "outputs depend on tokens that come later, as an encoder's do"
        )
    least, most, count = int(tokens.min()), int(tokens.max()), before.shape[-1]
    if least < 0 or most >= count:
        raise UsageError(
            f"perplexity: expected tokens from 0 to {count - 1}, those that {type(model).__name__} "
            f"foretells, found {least if least < 0 else most}; is the text of another tokenizer?"
        )
    return count


def _logits(output: object, tokens: Tensor) -> Tensor:
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != tokens.shape:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(
            f"perplexity: expected logits (batch, length, vocabulary) for tokens "
            f"{tuple(tokens.shape)}, found {found}; a language model has them"
        )
    return logits


def _scores(logits: Tensor, wanted: Tensor, first: int) -> tuple[float, float, float]:
    """Loss, hits and number of the tokens from that place on, over all rows."""
    logits, wanted = logits[:, first:].flatten(0, 1).float(), wanted[:, first:].flatten()
    loss = cross_entropy(logits, wanted, reduction="none").double().sum()
    hits = (logits.argmax(-1) == wanted).sum()
    return float(loss), float(hits), float(len(wanted))

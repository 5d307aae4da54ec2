"""Inversion: images are changed until the network's batch norms see what they saw in training.

A batch norm keeps the mean and the standard deviation that its inputs had over the training data.
Images for which all of them come out right excite the network about as its own data do:

    min over x of  mean over layers of  ‖(m(x) − μ)/σ‖²/n + ‖s(x)/σ − 1‖²/n,

m and s the mean and standard deviation of a layer's n inputs over a batch of images and places, μ
and σ the stored ones. The statistics are those of Yin et al., "Dreaming to distill" (DeepInversion,
CVPR 2020), eq. 4, made scale-free. Few steps of Adam, started from images that are natural in
their kind, are enough: it is the correlations between channels that the regression reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bequest.measure.execution import evaluation_mode
from bequest.measure.progress import tracked

RATE = 0.1
"""Adam's first rate, in standard deviations of a pixel; falls to zero in a straight line."""

MEMORY = 2**30
"""Bytes of batch norms' inputs in one batch; the gradient holds about three times as much."""


def invert(model: nn.Module, images: Tensor, steps: int, *, show: bool = False) -> Tensor:
    """Fits images to the statistics that a network's batch norms have stored.

    Args:
        model: a network with batch norms that keep statistics; without one nothing changes.
        images: where it begins, (count, channels, *space); they are not changed.
        steps: of Adam, each a forward and a backward pass of all images: what bounds the cost.
        show: a progress bar on a terminal.

    Returns:
        The fitted images, in batches of their own as large as memory allows.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    if not norms or steps == 0:
        return images
    with evaluation_mode(model):
        batches = torch.split(images, _batch_size(model, norms, images))
        total = range(steps * len(batches))
        bar = iter(tracked(total, "inverting", total, show))
        fitted = [_fit(model, norms, batch, steps, bar) for batch in batches]
        next(bar, None)  # lets the bar close
    return torch.cat(fitted)


def _fit(
    model: nn.Module, norms: Sequence[nn.Module], batch: Tensor, steps: int, bar: Iterator[int]
) -> Tensor:
    x = batch.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([x], RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 1 / (steps + 1), steps)
    with torch.enable_grad(), _watched(norms) as seen:
        for _ in range(steps):
            next(bar)
            seen.clear()
            model(x)
            loss = torch.stack([mismatch(norm, value) for norm, value in seen]).mean()
            (x.grad,) = torch.autograd.grad(loss, [x])
            optimiser.step()
            schedule.step()
    return x.detach()


def mismatch(norm: nn.Module, value: Tensor) -> Tensor:
    """How far a batch norm's input is from what it has stored; 0 = the same moments."""
    dims = [d for d in range(value.ndim) if d != 1]
    mean, var = value.mean(dims), value.var(dims, correction=0)
    sigma = (norm.running_var + norm.eps).sqrt()  # type: ignore[operator]
    shift = (mean - norm.running_mean) / sigma  # type: ignore[operator]
    stretch = (var + norm.eps).sqrt() / sigma - 1  # type: ignore[operator]
    return shift.square().mean() + stretch.square().mean()


def _batch_size(model: nn.Module, norms: Sequence[nn.Module], images: Tensor) -> int:
    """As many images as fit into :data:`MEMORY`, in equal batches."""
    with torch.no_grad(), _watched(norms) as seen:
        model(images[:1])
    each = sum(value.nbytes for _, value in seen)
    batches = -(-len(images) * each // MEMORY)
    return -(-len(images) // max(1, batches))


@contextmanager
def _watched(norms: Sequence[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Collects the inputs of batch norms as the model runs."""
    seen: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        norm.register_forward_pre_hook(lambda module, args: seen.append((module, args[0])))
        for norm in norms
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()

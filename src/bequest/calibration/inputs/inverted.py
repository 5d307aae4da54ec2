"""Inversion: images are changed until the network sees in them what it saw in training.

A batch norm keeps the mean and the standard deviation that its inputs had over the training data.
Images for which all of them come out right excite the network about as its own data do:

    min over x of  mean over layers of  ‖(m(x) − μ)/σ‖²/n + ‖s(x)/σ − 1‖²/n,

m and s the mean and standard deviation of a layer's n inputs over a batch of images and places, μ
and σ the stored ones. The statistics are those of Yin et al., "Dreaming to distill" (DeepInversion,
CVPR 2020), eq. 4, made scale-free. A classifier without batch norms has stored nothing but what it
tells apart; its images are moved towards classes drawn at random, by the cross-entropy of its
logits (the first term of that paper's eq. 1, alone).

Few steps of Adam, started from images that are natural in their kind, are enough: it is the
correlations between channels that the regression reads. Moments tell little of these, and pixels
are many, so images keep what is fine in them: the change that makes moments agree is as coarse as
:data:`CELLS` says, linear between its cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from bequest.calibration.inputs.batching import Batching
from bequest.calibration.inputs.images import Range
from bequest.calibration.samples import Samples
from bequest.execution.copies import private_copy
from bequest.execution.progress import tracked
from bequest.execution.randomness import stream
from bequest.execution.running import Inputs, run
from bequest.graph.inputs import with_tensors

RATE = 0.1
"""Adam's first rate, in standard deviations of a pixel; falls to zero in a straight line."""

CELLS = 16
"""Cells of the change along the shorter side of an image, where moments are fitted. Changes finer
than that make moments agree in ways in which images are less natural than before."""

MODES = {2: "bilinear", 3: "trilinear"}
"""How cells are spread over so many dimensions; a change over others is as fine as the images."""

MEMORY = 2**30
"""Bytes of batch norms' inputs in one batch; the gradient holds about three times as much."""

INDEPENDENT = 64
"""Images in one batch where each is fitted for itself."""

LOST = 1e-4
"""A variance of this share of the mean square is not taken from it by subtraction."""

Objective = Callable[[Tensor], Tensor]


def inverted(
    model: nn.Module,
    made: Samples,
    example_inputs: Any,
    steps: int,
    value_range: Range,
    seed: int,
    *,
    show: bool = False,
) -> Samples:
    """The same images, fitted to what the model has learnt: see :func:`invert`.

    Networks that take anything else than one batch of images or sequences are left as they are.
    """
    images = made.images()
    if images is None:
        return made
    size = made.chunk_size
    fixed = Batching.of(example_inputs).size == size  # it may run with so many alone
    fitted = invert(
        model,
        images,
        steps,
        value_range,
        seed,
        call=lambda images: with_tensors(example_inputs, [images]),
        at_once=size if fixed else None,
        show=show,
    )
    return made.with_images(fitted)


def invert(
    model: nn.Module,
    images: Tensor,
    steps: int,
    value_range: Range = None,
    seed: int = 0,
    *,
    call: Callable[[Tensor], Inputs] = lambda images: (images,),
    at_once: int | None = None,
    show: bool = False,
) -> Tensor:
    """Fits images to the statistics that batch norms have stored, or else to classes.

    Args:
        model: a network with batch norms that keep statistics, or one whose only output is logits
            (B, K); images for any other stay as they are. A copy of it is run.
        images: where it begins, (count, channels, *space); they are not changed.
        steps: of Adam, each a forward and a backward pass of all images: what bounds the cost.
        value_range: lowest and highest value of real images, where known; kept to.
        seed: of the classes drawn.
        call: the network's arguments with the images in their place.
        at_once: images that the network takes at once; None = any number.
        show: a progress bar on a terminal.

    Returns:
        The fitted images, in batches of their own as large as memory allows.
    """
    if steps == 0 or images.numel() == 1:  # a single pixel has no deviation to be moved by
        return images
    copy = private_copy(model)
    seen = _watch(copy)

    def outputs(x: Tensor) -> Any:
        return run(copy, call(x.clone()))  # code may write into its input

    with torch.no_grad():
        first = outputs(images[: at_once or 1])
        if not (seen or _are_logits(first)):
            return images
        size = at_once or (_batch_size(seen, len(images)) if seen else INDEPENDENT)
        batches = torch.split(images, size)
        if seen:
            objectives = [partial(_mismatches, outputs, seen)] * len(batches)
        else:
            generator = stream(seed)
            count = first.shape[1]
            classes = torch.randint(count, images.shape[:1], generator=generator, device="cpu")
            drawn = torch.split(classes.to(images.device), size)
            objectives = [partial(_distance, outputs, part) for part in drawn]
        total = range(steps * len(batches))
        bar = iter(tracked(total, "inverting", total, show))
        rate = RATE * float(images.std())
        grid = _coarse(images.shape[2:]) if seen else tuple(images.shape[2:])
        fitted = [
            _fit(objective, batch, grid, steps, rate, value_range, bar)
            for objective, batch in zip(objectives, batches, strict=True)
        ]
        next(bar, None)  # lets the bar close
    return torch.cat(fitted)


def _are_logits(output: object) -> bool:
    """One row of at least two class scores per image."""
    return isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1


def _fit(
    objective: Objective,
    batch: Tensor,
    grid: Sequence[int],
    steps: int,
    rate: float,
    value_range: Range,
    bar: Iterator[int],
) -> Tensor:
    change = batch.new_zeros(*batch.shape[:2], *grid, requires_grad=True)
    optimiser = torch.optim.Adam([change], rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 1 / (steps + 1), steps)

    def changed() -> Tensor:
        x = batch + _spread(change, batch.shape[2:])
        return x if value_range is None else x.clamp(*value_range)

    for _ in range(steps):
        next(bar)
        with torch.enable_grad():
            (change.grad,) = torch.autograd.grad(objective(changed()), [change])
        optimiser.step()
        schedule.step()
    return changed().detach()


def _coarse(space: Sequence[int]) -> tuple[int, ...]:
    """Cells of the change along each side: as many as pixels, at most about :data:`CELLS`."""
    share = min(1.0, CELLS / min(space)) if len(space) in MODES else 1.0
    return tuple(round(share * side) for side in space)


def _spread(change: Tensor, space: Sequence[int]) -> Tensor:
    """The change of every pixel, linear between the cells."""
    if tuple(change.shape[2:]) == tuple(space):
        return change
    return interpolate(change, size=tuple(space), mode=MODES[len(space)])


def _distance(outputs: Callable[[Tensor], Any], classes: Tensor, x: Tensor) -> Tensor:
    """How far images are from the classes; a sum, so that each is fitted for itself."""
    return cross_entropy(outputs(x), classes, reduction="sum")


def _mismatches(
    outputs: Callable[[Tensor], Any], seen: list[tuple[nn.Module, Tensor]], x: Tensor
) -> Tensor:
    """How far batch norms are from their stored statistics, on average; ``seen`` is watched."""
    seen.clear()
    outputs(x)
    return torch.stack([mismatch(norm, value) for norm, value in seen]).mean()


def mismatch(norm: nn.Module, value: Tensor) -> Tensor:
    """How far a batch norm's input is from what it has stored; 0 = the same moments."""
    mean, var = Moments.apply(value)  # type: ignore[no-untyped-call]
    sigma = (norm.running_var + norm.eps).sqrt()  # type: ignore[operator]
    shift = (mean - norm.running_mean) / sigma
    stretch = (var + norm.eps).sqrt() / sigma - 1
    distance: Tensor = shift.square().mean() + stretch.square().mean()
    return distance


class Moments(torch.autograd.Function):
    """Mean and variance (biased) of each channel, dimension 1.

    Many times as fast as ``mean`` and ``var``, which take half of a step: from sums and norms of
    contiguous rows, and with one pass back. Where the mean is so large beside the deviation that
    the difference of squares has lost its digits, the variance is taken as such.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        """(n, C, *space) → (C,) and (C,)."""
        rows = value.flatten(2) if value.ndim > 2 else value[:, :, None]
        mean = rows.mean(2).mean(0)
        power = torch.linalg.vector_norm(rows, dim=2).square().mean(0) / rows.shape[2]
        var = power - mean.square()
        if (var < LOST * power).any():
            var = rows.var((0, 2), correction=0)
        ctx.save_for_backward(value, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, by_mean: Tensor, by_var: Tensor) -> Tensor:
        """Of both, by the value."""
        value, mean = ctx.saved_tensors
        count = value.numel() // value.shape[1]
        slope = 2 * by_var / count
        start = by_mean / count - slope * mean
        shape = [-1 if d == 1 else 1 for d in range(value.ndim)]
        return torch.addcmul(start.view(shape), value, slope.view(shape))


def _batch_size(seen: Sequence[tuple[nn.Module, Tensor]], count: int) -> int:
    """As many images as fit into :data:`MEMORY`, in equal batches; one of them has been seen."""
    each = sum(value.nbytes for _, value in seen)
    batches = -(-count * each // MEMORY)
    return -(-count // max(1, batches))


def _watch(copy: nn.Module) -> list[tuple[nn.Module, Tensor]]:
    """A list that collects the inputs of batch norms that keep statistics, as the copy runs."""
    seen: list[tuple[nn.Module, Tensor]] = []
    for norm in copy.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
            norm.register_forward_pre_hook(lambda module, args: seen.append((module, args[0])))
    return seen

"""Rules for operators that work along given dimensions: reductions, softmax, flips, sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, fx

from bequest.graph.geometry import arguments
from bequest.graph.ledger import Layout
from bequest.graph.rules.base import Step, rule
from bequest.graph.rules.elementwise import partners
from bequest.graph.rules.widths import Narrowed, widths

_REDUCTIONS = (
    "sum amax amin var std var_mean std_mean prod argmax argmin any all norm logsumexp median mode "
    "kthvalue nanmean nansum nanmedian count_nonzero"
).split()

_MIXING = (
    "cumsum cumprod cummax cummin logcumsumexp diff sort topk argsort fft_fft fft_ifft fft_rfft "
    "fft_irfft fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn "
    "fft_rfftn fft_irfftn fft_fftshift fft_ifftshift"
).split()


@rule("mean", role="linear")
def mean(step: Step) -> Layout:
    """The mean over space leaves channels as they are; one over channels is what it is used for."""
    layouts = reduction(step)
    assert isinstance(layouts, Layout)
    return layouts


@rule(*_REDUCTIONS, "linalg_vector_norm", role="join")
def reduction(step: Step) -> Layout | tuple[Layout, ...]:
    """Dimensions that are summed up; what it is used for says whether channels can leave them."""
    layout = step.layout(step.arg(0, "self"))
    dims = list(layout.dims)
    gone = _dims(step, len(dims))
    summed = [labels for labels in (dims[dim] for dim in gone) if labels is not None]
    if summed:
        step.reading.reductions[step.node] = np.concatenate(summed)
    for dim in gone:
        dims[dim] = None
    value = step.node.meta["val"]
    first = value if isinstance(value, Tensor) else value[0]
    kept_shape = first.ndim == len(dims)
    result = layout.with_dims(d for i, d in enumerate(dims) if kept_shape or i not in gone)
    return result if isinstance(value, Tensor) else (result,) * len(value)


@rule("max", "min", role="join")
def extremum(step: Step) -> Layout | tuple[Layout, ...]:
    """The largest of a dimension or of all, or of two tensors element by element."""
    return partners(step) if len(step.operands()) > 1 else reduction(step)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", role="join")
@rule(*_MIXING, role="join")
def along(step: Step) -> Layout | tuple[Layout, ...]:
    """An operator that mixes or moves the indices of some dimensions, none of the others."""
    layout = step.layout(step.operands()[0])
    dims = list(layout.dims)
    for dim in _dims(step, len(dims)):
        step.freeze(dims[dim], "is mixed with its other channels")
        dims[dim] = None
    result = layout.with_dims(dims)
    value = step.node.meta["val"]
    return result if isinstance(value, Tensor) else (result,) * len(value)


@rule("tril", "triu", role="join")
def triangle(step: Step) -> Layout:
    """The last two dimensions keep their places, on which the triangle depends."""
    layout = step.layout(step.arg(0, "self"))
    for labels in layout.dims[-2:]:
        step.hold(labels, "is masked by its position")
    return layout.with_dims((*layout.dims[:-2], None, None))


@rule("diagonal", role="join")
def diagonal(step: Step) -> Layout:
    """Two dimensions become one, all of whose places stay."""
    layout = step.layout(step.arg(0, "self"))
    gone = {int(step.arg(i, f"dim{i - 1}", i - 2)) % len(layout.dims) for i in (2, 3)}
    for dim in gone:
        step.hold(layout.dims[dim], "is read along a diagonal")
    kept = [labels for dim, labels in enumerate(layout.dims) if dim not in gone]
    return layout.with_dims((*kept, None))


@rule("flip", role="join")
def flip(step: Step) -> Layout:
    """Channels in the other order."""
    layout = step.layout(step.arg(0, "self"))
    turned = {int(dim) % step.ndim for dim in step.arg(1, "dims")}
    return layout.with_dims(
        labels if labels is None or dim not in turned else labels[::-1]
        for dim, labels in enumerate(layout.dims)
    )


@rule("roll", role="join")
def roll(step: Step) -> Layout:
    """Indices go round; of channels, by as many as stay of those that come to the front."""
    layout, shifts = step.layout(step.arg(0, "self")), step.arg(1, "shifts")
    named = step.arg(2, "dims", [])
    if not named:  # over all elements, row by row
        for labels in layout.dims:
            step.freeze(labels, "is mixed with its other channels")
        return step.fixed()
    dims = list(layout.dims)
    for dim, shift in zip(named, shifts, strict=True):
        labels = dims[dim]
        if labels is not None:
            step.ledger.literal(labels, step.place)
            dims[dim] = np.roll(labels, shift)
    return layout.with_dims(dims)


@widths("roll")
def by_how_many(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """By how many places each dimension is rolled: what stays of the part that comes in front."""
    source, given = node.args[0], arguments(node)
    assert isinstance(source, fx.Node)
    layout = narrowed.layout(source)
    assert isinstance(layout, Layout)
    if not any(layout.dims[dim] is not None for dim in given["dims"]):
        return {}
    shifts = []
    for dim, shift in zip(given["dims"], given["shifts"], strict=True):
        labels = layout.dims[dim]
        ahead = None if labels is None else labels[len(labels) - shift % len(labels) :]
        shifts.append(shift if ahead is None else int((~narrowed.gone(ahead)).sum()))
    return {1: shifts}


def _dims(step: Step, rank: int) -> list[int]:
    """The dimensions that the operator names; all of them where it names none."""
    schema = step.node.target._schema  # type: ignore[union-attr]
    for position, argument in enumerate(schema.arguments):
        if argument.name in ("dim", "dims"):
            given = step.arg(position, argument.name, argument.default_value)
            if given is None or given == []:
                break
            named = given if isinstance(given, list | tuple) else [given]
            return [int(d) % rank for d in named] if rank else []
    return list(range(rank))

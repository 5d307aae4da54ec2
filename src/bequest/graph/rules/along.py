"""Rules for operators that work along given dimensions: reductions, softmax, flips, sums."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bequest.graph.ledger import Layout
from bequest.graph.rules.base import Step, rule
from bequest.graph.rules.elementwise import partners

_REDUCTIONS = (
    "sum amax amin var std var_mean std_mean prod argmax argmin any all norm logsumexp"
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
@rule("cumsum", "cumprod", "diff", "flip", "roll", "sort", "topk", "argsort", role="join")
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

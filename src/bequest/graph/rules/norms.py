"""Rules for normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from bequest.graph.geometry import arguments
from bequest.graph.ledger import Labels, Layout
from bequest.graph.rules.base import Step, rule
from bequest.graph.rules.elementwise import follow


@rule("_native_batch_norm_legit_no_training", role="norm")
def batch_norm(step: Step) -> tuple[Layout, ...]:
    """Batch norm with its stored statistics: one scale, shift, mean and variance per channel."""
    return _per_channel(step, _stored(step))


@rule("_native_batch_norm_legit", role="join")
def batch_norm_on_batch(step: Step) -> tuple[Layout, ...]:
    """Batch norm that normalises with the batch at hand (no stored statistics)."""
    _places(step, first=0)
    return _per_channel(step, step.operands()[1:])


@rule("batch_norm", role="norm")
def batch_norm_whole(step: Step) -> Layout:
    """Batch norm kept whole: by its stored statistics unless in training mode."""
    vectors = _stored(step)
    if step.arg(5, "training", False):
        step.reading.roles[step.node] = "join"
        _places(step, first=0)
    return _per_channel(step, vectors)[0]


@rule("instance_norm", role="join")
def instance_norm(step: Step) -> Layout:
    """Every channel by its own mean and variance in the sample."""
    _places(step, first=2)
    return _per_channel(step, step.operands()[1:])[0]


@rule("group_norm", "native_group_norm", role="join")
def group_norm(step: Step) -> Layout | tuple[Layout, ...]:
    """Channels in blocks that share statistics: blocks keep equal numbers.

    With as many blocks as channels it is an instance norm, whose number of blocks shrinks.
    """
    data = step.arg(0, "input")
    native = "native" in str(step.node.target)
    blocks = int(step.arg(6, "group") if native else step.arg(1, "num_groups"))
    names = ((1, "weight"), (2, "bias")) if native else ((2, "weight"), (3, "bias"))
    _places(step, first=2)
    result = _per_channel(step, [step.arg(position, name) for position, name in names])
    labels = step.layout(data).dims[1]
    if labels is not None and blocks != len(labels):
        _normalise(step, labels)
        if blocks != 1:
            step.ledger.balance(labels, blocks, step.place)
    return result if native else result[0]


@rule("layer_norm", "native_layer_norm", "rms_norm", role="join")
def layer_norm(step: Step) -> Layout | tuple[Layout, ...]:
    """Normalises the last dimensions together; what leaves no longer counts in the statistics."""
    data, count = step.arg(0, "input"), len(step.arg(1, "normalized_shape"))
    layout = step.layout(data)
    first = len(layout.dims) - count
    _normalise(step, *layout.dims[first:])
    for position in (2, 3):
        affine = step.arg(position, "weight" if position == 2 else "bias")
        if not isinstance(affine, fx.Node):
            continue
        for labels, slots in zip(layout.dims[first:], step.layout(affine).dims, strict=True):
            follow(step, labels, slots, layout.origin)
    values = step.node.meta["val"]
    if not isinstance(values, tuple | list):
        return layout
    rest = (Layout((None,) * value.ndim, step.place) for value in values[1:])
    return (layout, *rest)


def epsilon(norm: fx.Node) -> float:
    """The eps of a batch norm's operator."""
    return float(arguments(norm)["eps"])


def _stored(step: Step) -> list[fx.Node | None]:
    """Scale, shift, mean and variance of a batch norm, whose role is "norm" where none is computed.

    The walk from producer to consumer and the walk over inputs read them by name.
    """
    vectors: list[fx.Node | None] = [step.arg(position, "") for position in range(1, 5)]
    named = all(vector is None or step.tensor_name(vector) is not None for vector in vectors)
    step.reading.roles[step.node] = "norm" if named else "join"
    return vectors


def _places(step: Step, first: int) -> None:
    """Places that the statistics of a channel are taken over, from dimension ``first`` on."""
    dims = step.layout(step.arg(0, "input")).dims
    over = [labels for dim, labels in enumerate(dims) if dim >= first and dim != 1]
    _normalise(step, *over)


def _normalise(step: Step, *over: Labels | None) -> None:
    """Channels, along one or several dimensions, whose common statistics become those that stay."""
    met = [labels for labels in over if labels is not None]
    if met:
        held = step.reading.normalised.get(step.node, step.ledger.fresh(0))
        step.reading.normalised[step.node] = np.concatenate([held, *met])


def _per_channel(step: Step, affine: Sequence[fx.Node | None]) -> tuple[Layout, ...]:
    """Ties every vector in ``affine`` to dimension 1 of the data."""
    layout = step.layout(step.arg(0, "input"))
    for vector in affine:
        if isinstance(vector, fx.Node):
            follow(step, layout.dims[1], step.layout(vector).dims[0], layout.origin)
    values = step.node.meta["val"]
    several = values[1:] if isinstance(values, tuple | list) else ()
    return (layout, *(Layout((None,) * value.ndim, step.place) for value in several))

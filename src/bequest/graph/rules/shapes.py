"""Rules for operators that only move elements: views, permutations, slices, concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from torch import fx

from bequest.graph.ledger import Labels, Layout
from bequest.graph.reading import Fork
from bequest.graph.rules.base import Step, rule, wall
from bequest.graph.rules.elementwise import agreed
from bequest.graph.rules.partitions import in_unequal_parts, interleaved, partition


@rule("view", "_unsafe_view", "reshape", "flatten", "unflatten", role="linear")
def view(step: Step) -> Layout | tuple[Layout, ...]:
    """Merges and splits dimensions, keeping the order of the elements.

    A merged dimension repeats each label once per element that the channel brings (flattened
    maps). A split one keeps labels on one of its parts: on the only part along which they differ,
    or, where several do, on one of them (a fork), and what lies along the others leaves together
    (channel shuffle, heads of attention). A view of another type shows the bytes of its numbers.
    """
    if str(step.node.target) == "aten.view.dtype":
        return wall(step)
    data = step.operands()[0]
    layout, before = step.layout(data), tuple(data.meta["val"].shape)
    dims: list[Labels | None] = []
    for inner, outer in _factor(before, step.shape):
        merged = _merge(step, [layout.dims[d] for d in inner], [before[d] for d in inner])
        sizes = [step.shape[d] for d in outer]
        dims.extend([None] * len(outer) if merged is None else _split(step, merged, sizes))
    return layout.with_dims(dims)


@rule("permute", role="linear")
def permute(step: Step) -> Layout:
    """Another order of the dimensions."""
    layout = step.layout(step.operands()[0])
    return layout.with_dims(layout.dims[int(d)] for d in step.arg(1, "dims"))


@rule("transpose", "swapaxes", role="linear")
def transpose(step: Step) -> Layout:
    """Two dimensions change places."""
    layout = step.layout(step.operands()[0])
    dims = list(layout.dims)
    if dims:
        a, b = int(step.arg(1, "dim0")), int(step.arg(2, "dim1"))
        dims[a], dims[b] = dims[b], dims[a]
    return layout.with_dims(dims)


@rule("t", role="linear")
def turned(step: Step) -> Layout:
    """A matrix with rows and columns exchanged; a vector as it is."""
    layout = step.layout(step.operands()[0])
    return layout.with_dims(reversed(layout.dims))


@rule("unsqueeze", role="linear")
def unsqueeze(step: Step) -> Layout:
    """A new dimension of size one."""
    layout = step.layout(step.operands()[0])
    at = int(step.arg(1, "dim")) % step.ndim
    return layout.with_dims((*layout.dims[:at], None, *layout.dims[at:]))


@rule("squeeze", role="linear")
def squeeze(step: Step) -> Layout:
    """Dimensions of size one disappear."""
    data = step.operands()[0]
    layout, shape = step.layout(data), data.meta["val"].shape
    given = step.arg(1, "dim", list(range(len(shape))))
    named = given if isinstance(given, list | tuple) else [given]
    chosen = {int(d) % len(shape) for d in named} if shape else set()
    gone = {d for d in chosen if shape[d] == 1}
    return layout.with_dims(labels for d, labels in enumerate(layout.dims) if d not in gone)


@rule("expand", "broadcast_to", "expand_as", role="linear")
def expand(step: Step) -> Layout:
    """Dimensions of size one are repeated, as often as needed; the others keep their labels."""
    data = step.operands()[0]
    layout, shape = step.layout(data), data.meta["val"].shape
    new = step.ndim - len(shape)
    dims = [
        layout.dims[d - new]
        if d >= new and shape[d - new] == size
        else (step.ledger.loose(size) if size > 1 else None)
        for d, size in enumerate(step.shape)
    ]
    return layout.with_dims(dims)


@rule("slice", role="linear")
def slices(step: Step) -> Layout:
    """A range of indices.

    Of channels: where the range is a part of an equal partition, the parts keep equal numbers.
    Whether its bounds follow the width is tried out. An empty range holds no channels. Where every
    k-th is taken, runs of k channels leave together, and the step stays what it is.
    """
    layout = step.layout(step.operands()[0])
    dim = int(step.arg(1, "dim", 0)) % len(layout.dims)
    labels = layout.dims[dim]
    if labels is None:
        return layout
    bounds = slice(step.arg(2, "start"), step.arg(3, "end"), step.arg(4, "step", 1))
    part, taken = labels[bounds], range(len(labels))[bounds]
    if len(part) == len(labels):
        return layout
    if len(part) == 0:
        return layout.with_dims((*layout.dims[:dim], None, *layout.dims[dim + 1 :]))
    if taken.step == 1:
        alone = not in_unequal_parts(step.node, dim)
        partition(step, labels, taken.start, [part], alone=alone)
    elif not interleaved(step, labels, taken):
        step.freeze(labels, "is taken in steps from within")
    return layout.with_dims((*layout.dims[:dim], part, *layout.dims[dim + 1 :]))


@rule("split", "split_with_sizes", "chunk", "tensor_split", role="linear")
def split(step: Step) -> tuple[Layout, ...]:
    """Consecutive parts; equal parts keep equal numbers, unequal ones at least one channel each."""
    layout = step.layout(step.operands()[0])
    dim = int(step.arg(2, "dim", 0)) % len(layout.dims)
    widths = [value.shape[dim] for value in step.node.meta["val"]]
    labels = layout.dims[dim]
    parts: Sequence[Labels | None] = [None] * len(widths)
    if labels is not None:
        cut = np.split(labels, np.cumsum(widths)[:-1])
        parts = [part if len(part) else None for part in cut]
        filled = [part for part in cut if len(part)]
        if len(filled) > 1:
            partition(step, labels, 0, filled)
    return tuple(
        layout.with_dims((*layout.dims[:dim], part, *layout.dims[dim + 1 :])) for part in parts
    )


@rule("getitem", role="linear")
def getitem(step: Step) -> Layout:
    """One result of an operator that has several."""
    source, index = step.node.args
    assert isinstance(source, fx.Node)
    step.ignore([source])
    layouts = step.reading.layouts[source]
    step.reading.roles[step.node] = "linear"
    return layouts[int(index)] if isinstance(layouts, tuple) else layouts  # type: ignore[arg-type]


@rule("cat", "concat", role="linear")
def concatenate(step: Step) -> Layout:
    """Tensors one after the other: each keeps its own channels."""
    given = step.arg(0, "tensors")
    nodes = [node for node in given if node.meta["val"].ndim == step.ndim]
    step.ignore(node for node in given if node not in nodes)  # without any elements
    layouts = [step.layout(node) for node in nodes]
    dim = int(step.arg(1, "dim", 0)) % step.ndim
    widths = [int(node.meta["val"].shape[dim]) for node in nodes]
    filled = [
        (one.dims[dim], one, width) for one, width in zip(layouts, widths, strict=True) if width
    ]
    joined: Labels | None = None
    if any(piece is not None for piece, _, _ in filled):
        joined = np.concatenate(
            [
                step.ledger.rest(width, layout.origin) if piece is None else piece
                for piece, layout, width in filled
            ]
        )
    for node, one in zip(nodes, layouts, strict=True):
        piece = one.dims[dim]
        if piece is not None and node in step.reading.steady:
            step.ledger.segment(piece)  # a parameter that nobody else may write
    # The other dimensions must agree, as in an element-wise operator.
    without = [layout.with_dims(_without(layout.dims, dim)) for layout in layouts]
    shared = _agree(step, without)
    dims = [*shared[:dim], joined, *shared[dim:]]
    return Layout(tuple(dims), layouts[0].origin)


@rule("stack", role="linear")
def stack(step: Step) -> Layout:
    """Tensors side by side in a new dimension, which stays as it is."""
    layouts = [step.layout(node) for node in step.arg(0, "tensors")]
    at = int(step.arg(1, "dim", 0)) % step.ndim
    shared = _agree(step, layouts)
    return Layout((*shared[:at], None, *shared[at:]), layouts[0].origin)


def _factor(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Pairs of shortest runs of dimensions (before, after) that hold the same elements."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left: list[int] = []
        right: list[int] = []
        size_left = size_right = 1
        while not left or not right or size_left != size_right:
            take_left = i < len(before) and (not left or size_left < size_right)
            if not take_left and j >= len(after) and i < len(before):
                take_left = True
            if take_left:
                size_left *= before[i]
                left.append(i)
                i += 1
            elif j < len(after):
                size_right *= after[j]
                right.append(j)
                j += 1
            else:
                break
        groups.append((left, right))
    return groups


def _merge(step: Step, dims: list[Labels | None], sizes: list[int]) -> Labels | None:
    """Labels of several dimensions taken as one; two labelled ones can't be told apart."""
    tracked = [d for d, labels in enumerate(dims) if labels is not None]
    firm = [d for d in tracked if not step.ledger.is_loose(_held(dims[d]))]
    tracked = firm or tracked
    if not tracked:
        return None
    if len(tracked) > 1:
        for d in tracked:
            step.freeze(dims[d], "is merged with another dimension of channels")
        return None
    for d, labels in enumerate(dims):
        if d not in tracked:
            step.freeze(labels, "is merged with a dimension of channels")
    (d,) = tracked
    return np.tile(np.repeat(_held(dims[d]), prod(sizes[d + 1 :])), prod(sizes[:d]))


def _held(labels: Labels | None) -> Labels:
    assert labels is not None
    return labels


def _split(step: Step, labels: Labels, sizes: list[int]) -> list[Labels | None]:
    """Labels of one dimension laid out over several."""
    if len(sizes) == 1:
        return [labels]
    grid = labels.reshape(sizes)
    lines = [np.moveaxis(grid, d, 0).reshape(size, -1) for d, size in enumerate(sizes)]
    constant = [d for d, line in enumerate(lines) if (line == line[:, :1]).all()]
    chosen = next((d for d in constant if sizes[d] > 1), None)
    if chosen is None:
        part = step.reading.parts.get(step.node, 0)
        chosen = len(sizes) - part if 0 < part <= len(sizes) else int(np.argmax(sizes))
        kept, part = lines[chosen][:, 0], len(sizes) - chosen
        step.reading.forks[step.node] = Fork(labels, kept, part, sizes[chosen], len(sizes))
        step.ledger.tie(lines[chosen][:, :1], lines[chosen])
        step.ledger.literal(labels, step.place)
    return [lines[d][:, 0] if d == chosen else None for d in range(len(sizes))]


def _without(dims: Sequence[Labels | None], dim: int) -> list[Labels | None]:
    return [labels for d, labels in enumerate(dims) if d != dim]


def _agree(step: Step, layouts: Sequence[Layout]) -> list[Labels | None]:
    """Dimension by dimension: labelled ones leave together, and not where one of them is fixed."""
    shared: list[Labels | None] = []
    for pieces in zip(*(layout.dims for layout in layouts), strict=True):
        met = [labels for labels in pieces if labels is not None]
        fixed = next(
            (one.origin for one, p in zip(layouts, pieces, strict=True) if p is None), None
        )
        shared.append(agreed(step, met, fixed))
    return shared

"""Rules for operators that pick entries by index."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from bequest.graph.ledger import Labels, Layout
from bequest.graph.rules.base import Step, rule
from bequest.graph.rules.elementwise import agreed, aligned


@rule("select", role="join")
def select(step: Step) -> Layout:
    """One index of a dimension, which stays whole; the others keep their labels."""
    layout = step.layout(step.arg(0, "self"))
    return _without(step, layout, int(step.arg(1, "dim")))


@rule("unbind", role="join")
def unbind(step: Step) -> tuple[Layout, ...]:
    """Every index of a dimension on its own; the dimension stays whole."""
    layout = step.layout(step.arg(0, "self"))
    each = _without(step, layout, int(step.arg(1, "dim", 0)))
    return (each,) * len(step.node.meta["val"])


@rule("index_select", role="join")
def index_select(step: Step) -> Layout:
    """Some indices of a dimension, which stays whole."""
    layout = step.layout(step.arg(0, "self"))
    for labels in step.layout(step.arg(2, "index")).dims:
        _whole(step, labels)
    if not layout.dims:
        return layout
    dim = int(step.arg(1, "dim")) % len(layout.dims)
    _whole(step, layout.dims[dim])
    return layout.with_dims((*layout.dims[:dim], None, *layout.dims[dim + 1 :]))


@rule("take_along_dim", role="join")
def take_along_dim(step: Step) -> Layout:
    """Entries at the places of an index tensor: what both have stays whole."""
    for operand in step.operands():
        for labels in step.layout(operand).dims:
            _whole(step, labels)
    return step.fixed()


@rule("gather", role="join")
def gather(step: Step) -> Layout:
    """Entries of a dimension at the places that an index tensor says, each in its own channel."""
    return beside(step, [step.arg(0, "self"), step.arg(2, "index")], int(step.arg(1, "dim")))


@rule("scatter", "scatter_add", "scatter_reduce", role="join")
def scatter(step: Step) -> Layout:
    """Entries written to a dimension at the places that an index tensor says; as ``gather``."""
    return beside(step, step.operands(), int(step.arg(1, "dim")))


def beside(step: Step, operands: Sequence[fx.Node], dim: int) -> Layout:
    """Tensors side by side, of which one dimension is looked up: it stays whole in all of them.

    Where they differ in size along another, the smaller lies at the beginning of the larger.
    """
    layouts = [step.layout(operand) for operand in operands]
    dims: list[Labels | None] = []
    for at in range(step.ndim):
        met = [layout.dims[at] for layout in layouts]
        sizes = {int(operand.meta["val"].shape[at]) for operand in operands}
        if at == dim % step.ndim or len(sizes) > 1:
            for labels in met:
                step.hold(labels, "is looked up by index")
            dims.append(None)
            continue
        held = [labels for labels in met if labels is not None]
        dims.append(agreed(step, held, step.place if len(held) < len(met) else None))
    return layouts[0].with_dims(dims)


@rule("index", role="join")
def index(step: Step) -> Layout:
    """Tables looked up by tensors of indices: their dimensions stay whole, the others go on."""
    layout, chosen = step.layout(step.arg(0, "self")), step.arg(1, "indices")
    tables = [node for node in chosen if isinstance(node, fx.Node)]
    for table in tables:
        for labels in step.layout(table).dims:
            _whole(step, labels)
    looked_up = [d for d, table in enumerate(chosen) if isinstance(table, fx.Node)]
    masked = any(table.meta["val"].dtype.itemsize == 1 for table in tables)  # bool or uint8
    for dim, labels in enumerate(layout.dims):
        if dim in looked_up or masked:
            _whole(step, labels)
    if masked:
        return step.fixed()
    rest = [labels for dim, labels in enumerate(layout.dims) if dim not in looked_up]
    new: list[Labels | None] = [None] * (step.ndim - len(rest))
    # Index tensors side by side put their dimensions in their place, others in front.
    together = looked_up[-1] - looked_up[0] < len(looked_up)
    at = looked_up[0] if together else 0
    return layout.with_dims([*rest[:at], *new, *rest[at:]])


@rule("index_add", role="join")
def index_add(step: Step) -> Layout:
    """Rows added at the places that an index says: that dimension stays whole."""
    data, dim, index, rows = (
        step.arg(i, n) for i, n in enumerate(("self", "dim", "index", "source"))
    )
    layouts = [step.layout(data), step.layout(rows)]
    step.ignore([index])
    at = int(dim) % step.ndim
    for layout in layouts:
        _whole(step, layout.dims[at])
    whole = [
        layout.with_dims(None if d == at else one for d, one in enumerate(layout.dims))
        for layout in layouts
    ]
    shapes = [
        step.shape,
        tuple(1 if d == at else size for d, size in enumerate(rows.meta["val"].shape)),
    ]
    return aligned(step, whole, shapes)


def _without(step: Step, layout: Layout, dim: int) -> Layout:
    dim %= len(layout.dims)
    _whole(step, layout.dims[dim])
    return layout.with_dims((*layout.dims[:dim], *layout.dims[dim + 1 :]))


def _whole(step: Step, labels: Labels | None) -> None:
    step.freeze(labels, "is looked up by index")

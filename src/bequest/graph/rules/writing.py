"""Rules for operators that write a tensor into a part of another: ``x[:, :8] = y``."""

from __future__ import annotations

from torch import fx

from bequest.graph.ledger import Labels, Layout
from bequest.graph.rules.base import Step, rule
from bequest.graph.rules.elementwise import agreed
from bequest.graph.rules.partitions import interleaved


@rule("slice_scatter", role="join")
def slice_scatter(step: Step) -> Layout:
    """A range of indices is written over, and leaves with what is written; see ``slices``."""
    data, source = step.layout(step.arg(0, "self")), step.layout(step.arg(1, "src"))
    dim, size = int(step.arg(2, "dim", 0)) % step.ndim, step.shape
    bounds = slice(step.arg(3, "start"), step.arg(4, "end"), step.arg(5, "step", 1))
    part = range(size[dim])[bounds]
    whole, written = data.dims[dim], source.dims[dim]
    if len(part) == size[dim]:
        along = _agreed(step, whole, written, source)
    elif whole is None or (part.step != 1 and not interleaved(step, whole, part)):
        for labels in (whole, written):
            step.freeze(labels, "is a part of a dimension that can't shrink in parts")
        along = None
    else:
        along = whole
        if len(part):
            _agreed(step, whole[bounds], written, source)
            step.ledger.segment(whole[bounds])
        step.ledger.literal(whole, step.place)
    return _result(step, data, source, dim, along)


@rule("select_scatter", role="join")
def select_scatter(step: Step) -> Layout:
    """One index of a dimension is written over; the dimension stays whole."""
    data, source = step.layout(step.arg(0, "self")), step.layout(step.arg(1, "src"))
    dim = int(step.arg(2, "dim")) % step.ndim
    step.hold(data.dims[dim], "is looked up by index")
    source = source.with_dims((*source.dims[:dim], None, *source.dims[dim:]))
    return _result(step, data, source, dim, None)


@rule("index_put", role="join")
def index_put(step: Step) -> Layout:
    """Entries at the places that indices say: these dimensions stay whole, the others agree."""
    data, source = step.layout(step.arg(0, "self")), step.layout(step.arg(2, "values"))
    chosen = step.arg(1, "indices")
    tables = [node for node in chosen if isinstance(node, fx.Node)]
    places = [labels for table in tables for labels in step.layout(table).dims]
    simple = len(chosen) == 1 and len(tables[0].meta["val"].shape) == 1
    rest = data.dims[1:]
    if not simple or len(source.dims) not in (0, step.ndim) or tables[0].meta["val"].itemsize == 1:
        for labels in (*places, *data.dims, *source.dims):
            step.hold(labels, "is looked up by index")
        return step.fixed()
    for labels in (*places, data.dims[0], *source.dims[:1]):
        step.hold(labels, "is looked up by index")
    if source.dims:
        given = step.arg(2, "values").meta["val"].shape
        pairs = zip(rest, source.dims[1:], step.shape[1:], given[1:], strict=True)
        rest = tuple(
            _agreed(step, one, other, source) if size == width else one
            for one, other, size, width in pairs
        )
    return data.with_dims((None, *rest))


def _result(step: Step, data: Layout, source: Layout, dim: int, along: Labels | None) -> Layout:
    """The dimensions but ``dim`` of both tensors, which must lose the same channels."""
    pairs = enumerate(zip(data.dims, source.dims, strict=True))
    return data.with_dims(
        along if at == dim else _agreed(step, one, other, source) for at, (one, other) in pairs
    )


def _agreed(step: Step, one: Labels | None, other: Labels | None, source: Layout) -> Labels | None:
    """Labels of a dimension that a tensor and what is written into it share."""
    met = [labels for labels in (one, other) if labels is not None]
    return agreed(step, met, source.origin if len(met) == 1 else None)

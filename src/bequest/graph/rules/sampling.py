"""Rules for operators that read or write a map at places that another tensor says."""

from __future__ import annotations

from bequest.graph.ledger import Layout
from bequest.graph.rules.base import Step, rule
from bequest.graph.rules.elementwise import agreed


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", role="linear")
def grid_sampler(step: Step) -> Layout:
    """Every channel (dimension 1) is read at the same places, none of which may leave."""
    image, grid = step.arg(0, "input"), step.arg(1, "grid")
    step.reading.roles[step.node] = "linear" if step.arg(3, "padding_mode") else "pad"
    dims, places = step.layout(image).dims, step.layout(grid).dims
    for labels in (*dims[2:], *places[1:]):
        step.hold(labels, "is a place, or says one")
    batch = [labels for labels in (dims[0], places[0]) if labels is not None]
    origin = None if len(batch) == 2 else step.place
    first = agreed(step, batch, origin)
    return step.layout(image).with_dims((first, dims[1], *(None,) * (step.ndim - 2)))


@rule("max_unpool2d", "max_unpool3d", role="join")
def max_unpool(step: Step) -> Layout:
    """Maxima are put back where they were, each in its own channel."""
    layouts = [step.layout(operand) for operand in step.operands()]
    rank = 2 if "2d" in str(step.node.target) else 3
    dims = []
    for pieces in zip(*(layout.dims[:-rank] for layout in layouts), strict=True):
        met = [labels for labels in pieces if labels is not None]
        fixed = layouts[0].origin if len(met) < len(pieces) else None
        dims.append(agreed(step, met, fixed))
    return layouts[0].with_dims((*dims, *(None,) * rank))

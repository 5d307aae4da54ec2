"""Rules for complex numbers, whose two parts stand in one place."""

from __future__ import annotations

from bequest.graph.ledger import Layout
from bequest.graph.rules.base import Step, rule
from bequest.graph.rules.elementwise import activation, partners

rule("real", "imag", "angle", "conj", "_conj", "resolve_conj", role="join")(activation)
rule("complex", "polar", role="join")(partners)


@rule("view_as_real", role="join")
def view_as_real(step: Step) -> Layout:
    """The parts lie in a new last dimension."""
    layout = step.layout(step.arg(0, "self"))
    return layout.with_dims((*layout.dims, None))


@rule("view_as_complex", role="join")
def view_as_complex(step: Step) -> Layout:
    """The last dimension holds the parts, both of which stay."""
    layout = step.layout(step.arg(0, "self"))
    step.freeze(layout.dims[-1], "is a part of a complex number")
    return layout.with_dims(layout.dims[:-1])

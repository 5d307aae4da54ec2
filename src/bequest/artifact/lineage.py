"""What a pruned network remembers: the plan that made it, so that pruning it again goes on from it.

The plan of a second pruning alone would describe the step from one narrow network to a narrower
one, which nobody can build anew. Composed with what the network remembers it leads from the dense
network to the last one, and a fresh instance of the dense class is all that loading needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from bequest.artifact.fingerprint import (
    Architecture,
    architecture,
    digest,
    fingerprint,
    stored_tensors,
)
from bequest.artifact.parse import parse_plan
from bequest.artifact.plan import Plan
from bequest.artifact.succession import succeeded
from bequest.errors import ArtifactError
from bequest.graph.trace import named_tensors
from bequest.surgery.composition import qualified

_KEY = "_bequest_lineage"


@dataclass(frozen=True)
class Lineage:
    """Where a pruned network comes from.

    It stands in the network as a plain attribute: copies have it, ``state_dict`` has not. Pickled
    with a network it becomes text, so that unpickling needs nothing but the network's class.

    Attributes:
        plan: leads from the dense network to this one.
        dense: the dense network; None where it is not known, that of a program that was loaded.
        pruned: fingerprint of the network that the plan leads to. A network of another one was
            changed since, and the plan doesn't hold for it.
    """

    plan: Plan
    dense: Architecture | None
    pruned: str

    def __copy__(self) -> Lineage:
        return self

    def __deepcopy__(self, memo: object) -> Lineage:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        dense = None if self.dense is None else list(self.dense.items())
        return str, (json.dumps([self.plan.to_json(), dense, self.pruned]),)


def remember(model: nn.Module, plan: Plan, dense: Architecture | None) -> None:
    """Lets a network remember the plan that led to it from the network ``dense``."""
    _memory(model)[_KEY] = Lineage(plan, dense, fingerprint(model))


def recall(model: nn.Module) -> Lineage | None:
    """What a network remembers, where that still holds; None also where it was not pruned."""
    found = _recalled(model) if _KEY in _memory(model) else None
    return found if isinstance(found, Lineage) else None


@dataclass(frozen=True)
class Continuation:
    """A plan that goes on from what a network remembers.

    Attributes:
        plan: from the first dense network on; that of the last pruning alone where none is known.
        dense: the network that the plan begins at; None where it is not known.
        notes: on what was remembered and does not hold any more.
    """

    plan: Plan
    dense: Architecture | None
    notes: tuple[str, ...]


def continued(model: nn.Module, plan: Plan) -> Continuation:
    """Goes on from the plans of networks that were pruned before, the whole or parts of it.

    Args:
        model: the network that was pruned now, as it was before.
        plan: of this pruning alone.
    """
    lineages, notes = _lineages(model)
    if not lineages:
        return Continuation(plan, architecture(model), notes)
    earlier = {part: lineage.plan for part, lineage in lineages.items()}
    made = _made(model, earlier)
    if "" in lineages:
        dense, origin = lineages[""].dense, lineages[""].plan.architecture
    else:
        dense = _dense(model, lineages, made)
        origin = digest(dense)
    return Continuation(succeeded(earlier, plan, origin, made), dense, notes)


def _memory(model: nn.Module) -> dict[str, Any]:
    """Where a network keeps what copies of it take along."""
    return model.meta if isinstance(model, fx.GraphModule) else vars(model)


def _lineages(model: nn.Module) -> tuple[dict[str, Lineage], tuple[str, ...]]:
    """The outermost parts of a network whose lineages hold: name ('' = the whole) → lineage."""
    found: dict[str, Lineage] = {}
    lost: dict[str, str] = {}
    tensors: set[int] = set()
    for part, module in model.named_modules():
        if _KEY not in _memory(module) or _is_inside(part, found):
            continue
        own = {id(tensor) for tensor in stored_tensors(module).values()}
        lineage = _recalled(module)
        if part and isinstance(lineage, Lineage) and lineage.plan.form == "program":
            lineage = "is a program, which has no class to begin from"
        elif not own.isdisjoint(tensors):
            lineage = "shares tensors with another part that was pruned by itself"
        if isinstance(lineage, Lineage):
            found[part] = lineage
            tensors |= own
        elif not _is_inside(part, lost):
            lost[part] = lineage
    return found, tuple(_note(part, reason) for part, reason in lost.items())


def _note(part: str, reason: str) -> str:
    whose = f"'{part}'" if part else "the network"
    return (
        f"{whose} was pruned before and {reason}: the plan begins at what was given to this call, "
        "which bequest.load needs to read it again"
    )


def _recalled(module: nn.Module) -> Lineage | str:
    """What a network remembers, else why that doesn't hold."""
    held = _memory(module)[_KEY]
    try:
        lineage = _from_text(held) if isinstance(held, str) else held
    except ArtifactError as error:
        return f"remembers a plan of another version ({error})"
    assert isinstance(lineage, Lineage)
    if fingerprint(module) != lineage.pruned:
        return "its tensors were renamed, replaced or resized since"
    return lineage


def _from_text(text: str) -> Lineage:
    plan, dense, pruned = json.loads(text)
    entries = None if dense is None else {tuple(names): tuple(shape) for names, shape in dense}
    return Lineage(parse_plan(plan), entries, pruned)


def _is_inside(part: str, outer: Iterable[str]) -> bool:
    return any(not one or f"{part}.".startswith(f"{one}.") for one in outer)


def _made(model: nn.Module, earlier: Mapping[str, Plan]) -> frozenset[str]:
    """Every name of the biases that earlier prunings made."""
    tensors = named_tensors(model)
    biases = [qualified(part, name) for part, p in earlier.items() for name in p.surgery.biases]
    made = {id(tensors.get(qualified(layer, "bias"))) for layer in biases}
    return frozenset(name for name, tensor in tensors.items() if id(tensor) in made)


def _dense(model: nn.Module, lineages: Mapping[str, Lineage], made: frozenset[str]) -> Architecture:
    """What the network was before parts of it were pruned."""
    before = {
        qualified(part, name): shape
        for part, lineage in lineages.items()
        for names, shape in (lineage.dense or {}).items()
        for name in names
    }
    return {
        names: next((before[name] for name in names if name in before), shape)
        for names, shape in architecture(model).items()
        if made.isdisjoint(names)
    }

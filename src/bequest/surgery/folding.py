"""Weights that a network's code computes from parameters alone, stored in their place.

Standardised convolutions, gains, equalised learning rates, low-rank terms that are added to a
weight: in evaluation mode such a weight is a constant. Its module's code would compute it anew, so
the network with the plain weight is a program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, fx, nn

from bequest.graph.geometry import LAYERS
from bequest.graph.groups import Channels
from bequest.graph.trace import Network, named_tensors, operator_of
from bequest.surgery.cut import Cut
from bequest.surgery.cuts import plan_surgery
from bequest.surgery.emission import NotEmittable, emit
from bequest.surgery.program import Document, Program, build, resolve
from bequest.surgery.tryout import Finding, Trial

_MOVES = frozenset(
    "view _unsafe_view reshape permute transpose t numpy_T mT unsqueeze squeeze expand slice "
    "select split split_with_sizes chunk unbind getitem clone alias detach contiguous to "
    "_to_copy".split()
)
"""Operators that only move a parameter's numbers: what they make is followed without folding."""


def folded(
    model: nn.Module, dense: nn.Module, example_inputs: Any, channels: Channels
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with computed weights stored, as a program, and their names.

    The network itself where there are none, where it can't be written down as a program, and of
    weights whose parameters something else reads too.

    Args:
        model: the network, whose mode the program gets.
        dense: the same to be run: a private copy.
        example_inputs: what it was traced with.
        channels: its groups.
    """
    if not any(_is_computed(channels.reading.network, node) for node in channels.reading.steady):
        return model, ()
    cut = Cut.of(channels)

    def agrees(program: Program) -> bool:
        trial = Trial.over(dense, channels, example_inputs)
        return trial.of(cut, plan_surgery(cut, dense), program) == Finding()

    try:
        program = emit(dense, example_inputs, cut, model, agrees)
    except NotEmittable:
        return model, ()
    fold = _Fold(program.document, named_tensors(program))
    targets = fold.targets()
    if not targets:
        return model, ()
    document, tensors = fold.written(targets)
    return build(document, tensors).train(model.training), tuple(targets.values())


def _is_computed(network: Network, node: fx.Node) -> bool:
    """Whether a layer's weight is more than a parameter whose numbers are moved."""
    read = [user for user in node.users if operator_of(user) in LAYERS and user.args[1] is node]
    if not read or node.op != "call_function":
        return False
    pending, seen = [node], {node}
    while pending:
        one = pending.pop()
        if one.op == "call_function" and operator_of(one) not in _MOVES:
            return True
        new = set(one.all_input_nodes) - seen
        seen |= new
        pending += new
    return False


class _Fold:
    """A program's document, by the numbers of its values: inputs, tensors, steps.

    Args:
        document: the program.
        tensors: by name.
    """

    def __init__(self, document: Document, tensors: Mapping[str, Tensor]) -> None:
        self._document, self._tensors = document, tensors
        self._inputs, names = len(document["inputs"]), document["tensors"]
        self._names = dict(enumerate(names, self._inputs))
        self._steps = dict(enumerate(document["steps"], self._inputs + len(names)))
        self._read = {number: _operands(step) for number, step in self._steps.items()}
        self._steady = dict.fromkeys(self._names)
        for number, step in self._steps.items():
            if self._read[number] and self._read[number] <= self._steady.keys() and _is_pure(step):
                self._steady[number] = None

    def targets(self) -> dict[int, str]:
        """Computed weights of layers, and biases beside them → names for what is stored."""
        found: dict[int, None] = {}
        for number, step in self._steps.items():
            if _packet(step) in LAYERS and number not in self._steady:
                weight, *others = (self._computed(arg) for arg in step[1][1:3])
                if weight is not None:
                    found |= dict.fromkeys(one for one in (weight, *others) if one is not None)
        while True:
            needed = self._needed(found.keys())
            shared = [one for one in found if self._sources(one) & needed]
            if not shared:
                return self._named(found)
            for one in shared:
                del found[one]

    def written(self, targets: Mapping[int, str]) -> tuple[Document, dict[str, Tensor]]:
        """The document in which these values are tensors, and all of its tensors."""
        values = self._evaluated(targets)
        needed = self._needed(targets.keys())
        held = {number: name for number, name in self._names.items() if number in needed}
        held |= targets
        steps = [number for number in self._steps if number in needed and number not in targets]
        new = {number: number for number in range(self._inputs)}
        place = {name: self._inputs + i for i, name in enumerate(dict.fromkeys(held.values()))}
        new |= {number: place[name] for number, name in held.items()}
        new |= {number: self._inputs + len(place) + i for i, number in enumerate(steps)}
        tensors = {name: self._tensors[name] for name in place if name in self._tensors}
        trained = set(self._document["parameters"])
        for number, name in targets.items():
            learns = any(self._names[one] in trained for one in self._sources(number))
            tensors[name] = nn.Parameter(values[number]) if learns else values[number]
            trained = trained | {name} if learns else trained - {name}
        document = {
            **self._document,
            "tensors": list(place),
            "parameters": [name for name in place if name in trained],
            "steps": [_renumbered(self._steps[number], new) for number in steps],
            "returns": _renumbered(self._document["returns"], new),
        }
        return document, tensors

    def _computed(self, arg: Any) -> int | None:
        """The number of an operand that is computed from tensors by more than moves."""
        number = arg["value"] if isinstance(arg, dict) and "value" in arg else -1
        if number not in self._steady or number in self._names:
            return None
        made = self._behind(number)
        names = {_packet(self._steps[one]) for one in made if one in self._steps}
        return None if names <= _MOVES else number

    def _behind(self, number: int) -> set[int]:
        """The values that one is made of, itself included."""
        found, pending = {number}, [number]
        while pending:
            new = self._read.get(pending.pop(), set()) - found
            found |= new
            pending += new
        return found

    def _sources(self, number: int) -> set[int]:
        return self._behind(number) & self._names.keys()

    def _needed(self, stored: Iterable[int]) -> set[int]:
        """What the results are made of where these values are tensors."""
        found = set(_operands(self._document["returns"]))
        for number in reversed(self._steps):
            if number in found and number not in stored:
                found |= self._read[number]
        return found

    def _named(self, found: Mapping[int, None]) -> dict[int, str]:
        """Names: of what is given up, of its owner, or new ones; equal values share one."""
        needed, values = self._needed(found.keys()), self._evaluated(found)
        taken = {name: self._tensors[name] for n, name in self._names.items() if n in needed}
        named: dict[int, str] = {}
        for number, value in values.items():
            names = [self._names[one] for one in sorted(self._sources(number))]
            paths = zip(*(name.split(".")[:-1] for name in names), strict=False)
            owner = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, paths)]
            kind = "bias" if value.ndim == 1 else "weight"
            own = [
                name
                for name in names
                if name.rpartition(".")[2] == kind and self._tensors[name].shape == value.shape
            ]
            free = [*own, ".".join((*owner, kind)), ".".join((*owner, f"{kind}_{number}"))]
            named[number] = next(
                one for one in free if one not in taken or torch.equal(taken[one], value)
            )
            taken[named[number]] = value
        return named

    @torch.no_grad()
    def _evaluated(self, numbers: Iterable[int]) -> dict[int, Tensor]:
        """The values of these steps, in order."""
        behind = set().union(*map(self._behind, numbers))
        values: dict[int, Any] = {
            n: self._tensors[self._names[n]] for n in behind & self._names.keys()
        }
        for number in self._steps:
            if number in behind:
                operator, args, kwargs = self._steps[number]
                device = next(iter(values.values())).device
                named = {key: _value(one, values, device) for key, one in kwargs.items()}
                values[number] = resolve(operator)(*_value(args, values, device), **named)
        return {number: values[number].clone() for number in sorted(numbers)}


def _packet(step: Sequence[Any]) -> str:
    """The operator's name without namespace and overload."""
    return str(step[0]).removeprefix("aten.").partition(".")[0]


def _operands(item: Any) -> set[int]:
    """The numbers of the values that a part of a document reads; −1 where it reads the batch."""
    if isinstance(item, list):
        return set().union(*map(_operands, item))
    if not isinstance(item, dict):
        return set()
    if "value" in item and isinstance(item["value"], int):
        return {item["value"]}
    return {-1} if "samples" in item else set().union(*map(_operands, item.values()))


def _is_pure(step: Sequence[Any]) -> bool:
    """Whether a step makes the same numbers of the same operands each time."""
    target = resolve(step[0])
    return torch.Tag.nondeterministic_seeded not in getattr(target, "tags", ())


def _renumbered(item: Any, new: Mapping[int, int]) -> Any:
    if isinstance(item, list):
        return [_renumbered(one, new) for one in item]
    if not isinstance(item, dict):
        return item
    if "value" in item and isinstance(item["value"], int):
        return {"value": new[item["value"]]}
    return {key: _renumbered(one, new) for key, one in item.items()}


def _value(item: Any, values: Mapping[int, Any], device: torch.device) -> Any:
    """A constant of a document, or the value that it stands for."""
    if isinstance(item, list):
        return [_value(one, values, device) for one in item]
    if not isinstance(item, dict):
        return item
    ((key, held),) = item.items()
    if key == "value":
        return values[held]
    if key == "device":
        return device
    return float(held) if key == "float" else getattr(torch, held)

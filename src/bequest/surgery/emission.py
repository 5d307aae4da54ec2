"""Writes a pruned network down as a program: the traced graph with its constants at new widths.

Constants that follow the batch size (:mod:`bequest.surgery.batches`) are written in proportion to
it; where one doesn't follow in proportion, or other operators run there, the program keeps the
batch size of the example.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import TreeSpec

from bequest.errors import ModelError
from bequest.graph.groups import Channels
from bequest.graph.inputs import normalise_inputs
from bequest.graph.trace import Network, named_tensors, operator_of, place_of
from bequest.graph.twins import VIEWS, without_copies
from bequest.surgery.batches import UNWRITTEN, at_other_batches, batch_size
from bequest.surgery.cut import Cut
from bequest.surgery.program import Document, Program, build, resolve

_NORM = "_native_batch_norm_legit_no_training"
_ASSERTIONS = frozenset({"_assert_tensor_metadata", "_assert_async", "_assert_scalar"})


class NotEmittable(ModelError):  # noqa: N818 -- a reason, given to the user among others
    """Why a network can't be written down as a program."""


def emit(
    model: nn.Module,
    example_inputs: Any,
    cut: Cut,
    pruned: nn.Module,
    agrees: Callable[[Program], bool] = lambda _: False,
) -> Program:
    """The pruned network as a program.

    Args:
        model: the dense model; only its code and shapes are read.
        example_inputs: what it was traced with.
        cut: who leaves.
        pruned: the model after the surgery; its ``forward`` need not run, its tensors are taken.
        agrees: whether a program computes what the network does; asked of operators of two samples
            that are to stand for those of a single one.

    Raises:
        NotEmittable: the network has an operator that programs may not hold, takes something else
            than tensors, numbers and texts, or returns something else than tensors; the message
            names it.
    """
    given = _arguments(model, example_inputs)
    several = at_other_batches(model, example_inputs, cut)
    if several is not None:
        try:
            program = _program(pruned, given, *several)
        except NotEmittable:  # of more samples the code goes another way
            pass
        else:
            if several[0] is cut or agrees(program):
                return program
    return _program(pruned, given, cut, None)


def check_emittable(model: nn.Module, example_inputs: Any, channels: Channels) -> None:
    """Raises NotEmittable where :func:`emit` would, without tracing."""
    writer = _Writer(Cut.of(channels), None)
    writer.document(_arguments(model, example_inputs), {}, ())


def _program(
    pruned: nn.Module,
    given: Sequence[Mapping[str, Any]],
    cut: Cut,
    twins: Mapping[fx.Node, fx.Node] | None,
) -> Program:
    writer = _Writer(cut, twins)
    parameters = dict(pruned.named_parameters(remove_duplicate=False))
    document = writer.document(given, _biases(pruned, cut.channels.reading.network), parameters)
    return build(document, {**named_tensors(pruned), **writer.constants})


class _Writer:
    """From nodes to steps; every value has the number of the step that makes it."""

    def __init__(self, cut: Cut, twins: Mapping[fx.Node, fx.Node] | None) -> None:
        self._network = network = cut.channels.reading.network
        self._cut = cut
        self._twins = twins
        self._batch = batch_size(network)
        self._number: dict[fx.Node, int] = {}
        self.constants: dict[str, Tensor] = {}

    def document(
        self,
        given: Sequence[Mapping[str, Any]],
        biases: Mapping[str, str],
        parameters: Collection[str],
    ) -> Document:
        """The whole program.

        Args:
            given: the arguments of ``forward`` that the example fills, in order.
            biases: weight → the bias that its layer was given.
            parameters: names of the tensors that are parameters.

        Raises:
            NotEmittable: a part of the network has no form in a program.
        """
        if self._network.returns is None:
            raise NotEmittable("running the network changes its buffers")
        kept, self._sources = without_copies(self._network)
        inputs, held = self._placeholders(kept, given)
        new = dict.fromkeys(biases.values())
        tensors = [*dict.fromkeys(held.values()), *new]
        count = len(inputs)
        place = {name: count + i for i, name in enumerate(tensors)}
        self._number.update({node: place[name] for node, name in held.items()})
        self._added = {layer: place[name] for layer, name in biases.items()}
        self._count = count + len(tensors)
        steps = [step for node in kept if node.op == "call_function" for step in self._step(node)]
        flat: Any = self._network.output.args[0]
        return {
            "inputs": inputs,
            "tensors": tensors,
            "parameters": [name for name in tensors if name in parameters],
            "steps": steps,
            "returns": _returned(self._network.returns, iter(flat), self._argument),
            "any_batch": self._twins is not None,
        }

    def _placeholders(
        self, kept: Sequence[fx.Node], given: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[fx.Node, str]]:
        inputs = [dict(each) for each in given]
        places = iter([i for i, each in enumerate(inputs) if "equals" not in each])
        held: dict[fx.Node, str] = {}
        for node in (node for node in kept if node.op == "placeholder"):
            value = node.meta["val"]
            if node.name in self._network.inputs:
                self._number[node] = place = next(places)
                dtype = str(value.dtype).removeprefix("torch.")
                inputs[place] |= {"shape": list(value.shape), "dtype": dtype}
            elif node.name in self._network.tensors:
                held[node] = self._network.tensors[node.name]
            elif node.name in self._network.constants:
                if self._network.constants[node.name].is_meta:
                    raise NotEmittable(
                        "a tensor made by the network's code has no values in the trace"
                    )
                held[node] = f"constants.{len(self.constants)}"
                self.constants[held[node]] = self._network.constants[node.name]
        return inputs, held

    def _step(self, node: fx.Node) -> list[list[Any]]:
        """The step of an operator; none for what computes nothing."""
        name = operator_of(node)
        if name in _ASSERTIONS:
            return []
        source = node.args[0]
        if name == "getitem" and isinstance(source, fx.Node) and operator_of(source) == _NORM:
            self._number[node] = self._number[source]
            return []
        rewritten = self._cut.literals(node)
        operator = _operator(node, rewritten)
        args = [
            self._argument(arg) if i not in rewritten else self._size(node, i, rewritten[i])
            for i, arg in enumerate(node.args)
        ]
        args += [rewritten[i] for i in sorted(rewritten) if i >= len(node.args)]
        args = self._proportional(node, args, rewritten)
        kwargs = {
            key: self._following(node, key, value)
            for key, value in node.kwargs.items()
            if key not in UNWRITTEN
        }
        if name == _NORM:  # the whole operator has a gradient, its decomposed form has none
            args = [*args[:5], False, *args[5:], True]
        args = self._with_bias(node, args)
        self._number[node] = self._count
        self._count += 1
        return [[operator, args, kwargs]]

    def _with_bias(self, node: fx.Node, args: list[Any]) -> list[Any]:
        """The bias that a layer was given by the restorer."""
        weight: Any = node.args[1] if len(node.args) > 1 else None
        name = self._network.tensors.get(weight.name, "") if isinstance(weight, fx.Node) else ""
        added = self._added.get(name)
        if added is None:
            return args
        return [*args[:2], {"value": added}, *args[3:]]

    def _size(self, node: fx.Node, position: int, planned: Any) -> Any:
        """A size at its new width, in proportion to the batch where it follows it."""
        if self._twins is None or not isinstance(node.args[position], Sequence):
            return planned
        shown = operator_of(node) in (*VIEWS, "expand")  # whose own sizes may be −1
        both = (node, self._twins[node])
        held: Any = [one.meta["val"].shape if shown else one.args[position] for one in both]
        sizes = zip(planned, *held, strict=True)
        return [size if one == other else self._samples(size) for size, one, other in sizes]

    def _proportional(self, node: fx.Node, args: list[Any], rewritten: Mapping[int, Any]) -> Any:
        """Other numbers that follow the batch size."""
        if self._twins is None:
            return args
        other = self._twins[node].args
        return [
            written if i in rewritten or i >= len(node.args) else self._scaled(written, arg, two)
            for i, (written, arg, two) in enumerate(
                zip(args, _filled(node.args, len(args)), _filled(other, len(args)), strict=True)
            )
        ]

    def _following(self, node: fx.Node, key: str, value: Any) -> Any:
        """An argument by keyword."""
        written = self._argument(value)
        if self._twins is None:
            return written
        return self._scaled(written, value, self._twins[node].kwargs[key])

    def _scaled(self, written: Any, here: Any, there: Any) -> Any:
        if isinstance(here, list | tuple):
            return [self._scaled(*each) for each in zip(written, here, there, strict=True)]
        if type(here) is int and here != there:
            return self._samples(here)
        return written

    def _samples(self, size: int) -> dict[str, int]:
        return {"samples": size // self._batch}

    def _argument(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return {"value": self._number[self._sources[value]]}
        if isinstance(value, list | tuple):
            return [self._argument(each) for each in value]
        return _constant(value)


def _constant(value: Any) -> Any:
    """A constant as JSON."""
    if isinstance(value, torch.device):
        return {"device": "input"}
    if isinstance(value, torch.dtype | torch.memory_format):
        key = "dtype" if isinstance(value, torch.dtype) else "memory_format"
        return {key: str(value).removeprefix("torch.")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise NotEmittable(f"a constant of the kind {type(value).__name__} has no form in a program")


def _operator(node: fx.Node, rewritten: Mapping[int, Any]) -> str:
    """The name of a node's operator in a program, at other widths."""
    if operator_of(node) == "split" and isinstance(rewritten.get(1), list):
        return "aten.split_with_sizes.default"
    if operator_of(node) == "getitem":
        return "getitem"
    if operator_of(node) in VIEWS:
        return "aten.reshape.default"
    name = "aten.batch_norm.default" if operator_of(node) == _NORM else str(node.target)
    try:
        resolve(name)
    except Exception as error:
        raise NotEmittable(f"{place_of(node)} is no operator that a program may hold") from error
    return name


def _returned(spec: TreeSpec, flat: Any, write: Callable[[Any], Any]) -> Any:
    """The structure of a result over the values of the output node, in order."""
    if spec.is_leaf():
        value = next(flat)
        if value is not None and not isinstance(value, fx.Node):
            raise NotEmittable(f"the network returns a {type(value).__name__}, no tensor")
        return None if value is None else write(value)
    parts = [_returned(child, flat, write) for child in spec.children()]
    if spec.type in (list, tuple):
        return {spec.type.__name__: parts}
    keys: Any = spec.context[0] if isinstance(spec.context, tuple) else spec.context
    if issubclass(spec.type, dict) and all(isinstance(key, str) for key in keys):
        return {"dict" if spec.type is dict else "named": dict(zip(keys, parts, strict=True))}
    if spec.type is type(None):
        return None
    raise NotEmittable(f"the network returns a {spec.type.__name__}")


def _arguments(model: nn.Module, example_inputs: Any) -> list[dict[str, Any]]:
    """The arguments of ``forward`` that the example fills, in order."""
    args, kwargs = normalise_inputs(example_inputs)
    parameters = inspect.signature(model.forward).parameters.values()
    plain = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    names = plain[: len(args)]
    names += [f"input_{i}" for i in range(len(names), len(args))]
    given = {**dict(zip(names, args, strict=True)), **kwargs}
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return [_argument(name, value, defaults.get(name, value)) for name, value in given.items()]


def _argument(name: str, value: Any, default: Any) -> dict[str, Any]:
    """What a program says of an argument; a tensor's shape and type come later.

    ``default`` is what the network takes it to be where a call leaves it out.
    """
    if isinstance(value, Tensor):
        return {"name": name}
    if not _is_plain(value):
        said = value if isinstance(value, float) else f"a {type(value).__name__}"
        raise NotEmittable(f"the network takes {said}")
    return {"name": name, "equals": value, "default": default if _is_plain(default) else None}


def _is_plain(value: Any) -> bool:
    """Whether plan.json can hold a value."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int | str | None)


def _filled(args: Sequence[Any], count: int) -> list[Any]:
    return [*args, *[None] * (count - len(args))]


def _biases(pruned: nn.Module, network: Network) -> dict[str, str]:
    """Weight → bias of the layers that were given one."""
    known = set(network.tensors.values())
    found: dict[str, str] = {}
    for name, module in pruned.named_modules():
        bias = f"{name}.bias" if name else "bias"
        weight = bias.removesuffix("bias") + "weight"
        if module._parameters.get("bias") is not None and weight in known and bias not in known:
            found[weight] = bias
    return found

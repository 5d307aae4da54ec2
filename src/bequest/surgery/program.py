"""A network without its class: the traced operators as plain data, run as a module.

A :class:`Document` is JSON: operators by name, constants, and references to tensors and to results
of earlier operators. Only operators that compute tensors from tensors and touch nothing else are
let in: those that have a rule, which those of other libraries need, and of ATen's all public ones.
What no channel leaves is written down as it is. :class:`Program` runs one.

Constants in JSON::

    {"value": 3}            the result of step 3 (inputs first, then tensors, then operators)
    {"samples": 2}          2 × the batch size, that of the first input with dimensions
    {"dtype": "float32"}    also "memory_format"
    {"device": "input"}     its device
    {"float": "-inf"}       a number that JSON can't hold
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from bequest.errors import ArtifactError, UsageError
from bequest.graph.rules.base import known_operators

Document = dict[str, Any]


class Outputs(dict[str, Any]):
    """Named results, also as attributes and by number: ``outputs.logits``, ``outputs[0]``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __getitem__(self, key: str | int | slice) -> Any:
        """A result by its name or number, several as a tuple by a slice."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The results without their names."""
        return tuple(self.values())


def _flatten(outputs: Outputs) -> tuple[list[Any], list[str]]:
    return list(outputs.values()), list(outputs)


def _flatten_with_keys(outputs: Outputs) -> tuple[list[tuple[Any, Any]], list[str]]:
    return [(pytree.MappingKey(name), each) for name, each in outputs.items()], list(outputs)


def _unflatten(values: Iterable[Any], names: list[str]) -> Outputs:
    return Outputs(zip(names, values, strict=True))


pytree.register_pytree_node(
    Outputs,
    _flatten,
    _unflatten,
    serialized_type_name="bequest.graph.program.Outputs",
    flatten_with_keys_fn=_flatten_with_keys,
)


class Program(fx.GraphModule):
    """A pruned network as a program: the traced operators at their new widths.

    It takes and returns what the network did, at any batch size where ``any_batch`` says so; other
    sizes (of images, of sequences) are those of the example inputs. Operators are those of
    evaluation mode, also after ``train()``: dropout does nothing, batch norms use what they have
    stored. Gradients flow. Parameters keep the names that they had in the network.
    """

    @property
    def document(self) -> Document:
        """The program as plain data, without its tensors."""
        found: Document = self.meta["document"]
        return found

    @property
    def any_batch(self) -> bool:
        """Whether the program takes any number of samples."""
        return bool(self.document["any_batch"])


def build(document: Document, tensors: Mapping[str, Tensor]) -> Program:
    """The program that a document describes.

    Args:
        document: what :func:`bequest.surgery.emission.emit` made, or a checked file.
        tensors: qualified name → parameter or buffer.

    Raises:
        ArtifactError: the document names an operator that is not let in, or is not well formed.
    """
    graph = fx.Graph()
    first = 1 if document["any_batch"] else 0
    values = [_checked(graph, *one, first) for one in _placeholders(graph, document["inputs"])]
    # Of a tensor without dimensions, as a temperature may be, there is no batch size.
    sample = max(range(len(values)), key=lambda i: bool(document["inputs"][i].get("shape")))
    values += [graph.get_attr(name) for name in document["tensors"]]
    held = {name: tensors[name] for name in document["tensors"]}
    root = _holder(held, frozenset(document["parameters"]))
    reader = _Reader(graph, values, sample)
    for step in document["steps"]:
        name, args, kwargs = step
        target = resolve(name)
        named = {key: reader(each) for key, each in kwargs.items()}
        values.append(graph.call_function(target, tuple(reader(args)), named))
    graph.output(_structure(graph, document["returns"], reader))
    program = Program(root, graph, class_name="Program")
    program.meta["document"] = document
    return program


_Input = Mapping[str, Any]


def _placeholders(graph: fx.Graph, inputs: Sequence[_Input]) -> list[tuple[fx.Node, _Input]]:
    """The arguments; numbers and texts behind all tensors may be left out."""
    last = max(i for i, each in enumerate(inputs) if "shape" in each)
    return [
        (
            graph.placeholder(each["name"], default_value=each["default"])
            if i > last
            else graph.placeholder(each["name"]),
            each,
        )
        for i, each in enumerate(inputs)
    ]


def _checked(graph: fx.Graph, value: fx.Node, each: _Input, first: int) -> fx.Node:
    if "equals" in each:
        return graph.call_function(of_traced_value, (value, each["name"], each["equals"]))
    return graph.call_function(of_traced_sizes, (value, tuple(each["shape"]), first))


def of_traced_value(value: Any, name: str, traced: Any) -> Any:
    """The value itself, a number or text that decided what the program does.

    Args:
        value: what an argument is given.
        name: the argument's.
        traced: what it was in the network's trace.

    Raises:
        UsageError: it is another.
    """
    if type(value) is not type(traced) or value != traced:
        raise UsageError(
            f"the network became a program, traced with {name}={traced!r}: expected that, found "
            f"{value!r}; prune it again with an example of that value"
        )
    return value


def of_traced_sizes(value: Tensor, shape: tuple[int, ...], first: int) -> Tensor:
    """The value itself, whose sizes are those that stand in the program.

    Args:
        value: what an input is given.
        shape: what it was in the network's trace.
        first: the dimension from which sizes count: 1 where any number of samples will do.

    Raises:
        UsageError: it has others, with which steps would compute something else.
    """
    found = tuple(value.shape)
    if len(found) != len(shape) or found[first:] != tuple(shape[first:]):
        batch = ", at any batch size" if first else ""
        raise UsageError(
            f"the network became a program, in which sizes stand as numbers: expected an input of "
            f"the shape {tuple(shape)}{batch}, found {found}; prune it again with example inputs "
            "of that shape"
        )
    return value


def resolve(name: str) -> Any:
    """The function of a step: ``aten.view.default``, or ``getitem``.

    Raises:
        ArtifactError: it is no operator that programs may hold.
    """
    if name == "getitem":
        return operator.getitem
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    ruled = (packet if namespace == "aten" else f"{namespace}::{packet}") in known_operators()
    if ruled or namespace == "aten":
        library = getattr(torch.ops, namespace, None)
        found = getattr(getattr(library, packet, None), overload or "?", None)
        if isinstance(found, torch._ops.OpOverload) and _may_run(packet, found, ruled=ruled):
            return found
    raise ArtifactError(f"program: expected an operator that bequest knows, found {name!r}")


_DYNAMIC = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_STORED_OTHERWISE = ("sparse", "mkldnn", "quant", "nested", "cudnn", "padded")


def _may_run(name: str, found: torch._ops.OpOverload, *, ruled: bool) -> bool:
    """Whether an operator computes tensors, or checks them, and does nothing else.

    Nothing with a rule reads files or writes to its operands. Of the rest, what makes tensors whose
    shape depends on numbers in others can't be tried out without data; what takes no tensor may
    read something else; and names with an underscore are PyTorch's own affair.
    """
    if found._schema.is_mutable:
        return False
    if ruled:
        return name != "repeat_interleave" or found._overloadname == "self_int"
    plain = not name.startswith("_") and not any(part in name for part in _STORED_OTHERWISE)
    takes = any("Tensor" in str(one.type) for one in found._schema.arguments)
    returns = all(str(one.type) in ("Tensor", "List[Tensor]") for one in found._schema.returns)
    core = torch.Tag.core in found.tags
    return (core or (plain and takes)) and returns and _DYNAMIC.isdisjoint(found.tags)


class _Reader:
    """From JSON to arguments of a graph."""

    def __init__(self, graph: fx.Graph, values: list[fx.Node], sample: int) -> None:
        self._graph = graph
        self._values = values
        self._sample = sample  # the first input that has a batch
        self._batch: fx.Node | None = None
        self._device: fx.Node | None = None

    def __call__(self, item: Any) -> Any:
        if isinstance(item, list):
            return [self(each) for each in item]
        if not isinstance(item, dict):
            return item
        ((key, held),) = item.items()
        if key == "value":
            return self._values[held]
        if key == "samples":
            return self._samples(held)
        if key == "device":
            return self._device_of_input()
        return float(held) if key == "float" else getattr(torch, held)

    def _samples(self, each: int) -> fx.Node:
        if self._batch is None:
            size = torch.ops.aten.sym_size.int
            self._batch = self._graph.call_function(size, (self._values[self._sample], 0))
        if each == 1:
            return self._batch
        return self._graph.call_function(operator.mul, (self._batch, each))

    def _device_of_input(self) -> fx.Node:
        if self._device is None:
            sample = self._values[self._sample]
            self._device = self._graph.call_function(getattr, (sample, "device"))
        return self._device


def _structure(graph: fx.Graph, returns: Any, reader: _Reader) -> Any:
    """The result: {"value": 7}, {"list": []}, {"tuple": []}, {"dict": {}} or {"named": {}}."""
    if returns is None:
        return None
    ((key, held),) = returns.items()
    if key == "value":
        return reader(returns)
    if key in ("dict", "named"):
        parts = {name: _structure(graph, each, reader) for name, each in held.items()}
        return graph.call_function(Outputs, (parts,)) if key == "named" else parts
    items = [_structure(graph, each, reader) for each in held]
    return tuple(items) if key == "tuple" else items


def _holder(tensors: Mapping[str, Tensor], parameters: Collection[str]) -> nn.Module:
    """A module with the tensors under their qualified names."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module._modules[part] = nn.Module()
            held = module._modules[part]
            assert held is not None
            module = held
        if isinstance(tensor, nn.Parameter):
            module._parameters[last] = tensor
        elif name in parameters:
            module._parameters[last] = nn.Parameter(tensor)
        else:
            module._buffers[last] = tensor
    return root

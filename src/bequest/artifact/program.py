"""From JSON to a program: every step is an operator that is known, on values that are there.

What is let in computes on tensors and nothing else; sizes are tried out without data.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from bequest.artifact import fields
from bequest.errors import ArtifactError
from bequest.sparse.encoding import TensorSpec
from bequest.surgery.program import Document, Program, build, resolve

FIELDS = ("inputs", "tensors", "parameters", "steps", "returns", "any_batch")
_OF_TENSORS, _OF_OTHERS = ("shape", "dtype"), ("equals", "default")
_NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)
_LARGEST = 2**40
_DEEPEST = 8


def load_program(value: object, tensors: Mapping[str, Tensor]) -> Program:
    """Builds the program that :attr:`Program.document` described.

    Args:
        value: the document as it was read.
        tensors: what the tensor file holds.

    Raises:
        ArtifactError: a field is missing, unknown, of another type or out of range; an operator is
            not known; or the program does not run on its own tensors and inputs.
    """
    document = check(value, tensors)
    program = build(document, tensors)
    _try_out(document, {name: TensorSpec.of(tensor) for name, tensor in tensors.items()})
    return program.eval()


def check(value: object, tensors: Mapping[str, Any]) -> Document:
    """The document, after every field was looked at."""
    inputs, names, parameters, steps, returns, any_batch = fields.record(value, "program", *FIELDS)
    for i, each in enumerate(fields.sequence(inputs, "program.inputs")):
        _input(each, f"program.inputs[{i}]")
    held = fields.texts(names, "program.tensors")
    if set(held) != set(tensors) or len(set(held)) != len(held):
        fields.refuse("program.tensors", "the names of the saved tensors, each once", held)
    for name in held:
        if not _NAME.fullmatch(name):
            fields.refuse("program.tensors", "qualified names", name)
    if not set(fields.texts(parameters, "program.parameters")) <= set(held):
        fields.refuse("program.parameters", "names of saved tensors", parameters)
    if not isinstance(any_batch, bool):
        fields.refuse("program.any_batch", "true or false", any_batch)
    count = len(inputs) + len(held)  # type: ignore[arg-type]
    if not any("shape" in each for each in inputs):  # type: ignore[attr-defined]
        fields.refuse("program.inputs", "at least one tensor", inputs)
    for i, step in enumerate(fields.sequence(steps, "program.steps")):
        _step(step, f"program.steps[{i}]", count + i)
    _returns(returns, count + len(steps))  # type: ignore[arg-type]
    document: Document = value  # type: ignore[assignment]
    return document


def _input(value: object, where: str) -> None:
    plain = isinstance(value, dict) and "equals" in value
    name, *rest = fields.record(value, where, "name", *(_OF_OTHERS if plain else _OF_TENSORS))
    word = fields.text(name, f"{where}.name")
    if not (word.isascii() and word.isidentifier()) or keyword.iskeyword(word):
        fields.refuse(f"{where}.name", "the name of an argument", word)
    if plain:
        for key, held in zip(_OF_OTHERS, rest, strict=True):
            if isinstance(held, list | dict):
                fields.refuse(f"{where}.{key}", "a number, a text, true, false or null", held)
            _constant(held, where, 0)
        return
    shape, dtype = rest
    fields.integers(shape, f"{where}.shape")
    _dtype(dtype, f"{where}.dtype")


def _dtype(value: object, where: str) -> torch.dtype:
    found = getattr(torch, fields.text(value, where), None)
    if not isinstance(found, torch.dtype):
        fields.refuse(where, "the name of a dtype", value)
    return found


def _step(value: object, where: str, known: int) -> None:
    parts = fields.sequence(value, where)
    if len(parts) != 3:
        fields.refuse(where, "an operator, its arguments and its named arguments", value)
    operator, args, kwargs = parts
    target = resolve(fields.text(operator, where))
    allowed: set[str] = set()
    if operator != "getitem":
        allowed = {argument.name for argument in target._schema.arguments}
    for arg in fields.sequence(args, where):
        _constant(arg, where, known)
    for key, arg in fields.mapping(kwargs, where).items():
        if key not in allowed:
            fields.refuse(where, f"named arguments of {operator}", key)
        _constant(arg, where, known)


def _constant(value: object, where: str, known: int, depth: int = 0) -> None:
    if isinstance(value, list) and depth < _DEEPEST:
        for each in value:
            _constant(each, where, known, depth + 1)
    elif isinstance(value, dict):
        _marker(value, where, known)
    elif isinstance(value, str):
        fields.text(value, where)
    elif isinstance(value, float):
        fields.finite(value, where)
    elif value is not None and not isinstance(value, bool):
        fields.integer(value, where, -(2**63))


def _marker(value: object, where: str, known: int) -> None:
    marked = fields.mapping(value, where)
    if len(marked) != 1:
        fields.refuse(where, "a single mark", value)
    ((key, held),) = marked.items()
    if key == "value":
        if fields.integer(held, where) >= known:
            fields.refuse(where, f"a value under {known}", held)
    elif key == "samples":
        fields.integer(held, where, 1)
    elif key == "dtype":
        _dtype(held, where)
    elif key == "memory_format":
        if not isinstance(getattr(torch, fields.text(held, where), None), torch.memory_format):
            fields.refuse(where, "the name of a memory format", held)
    elif (key, held) != ("device", "input") and not (
        key == "float" and held in ("inf", "-inf", "nan")
    ):
        fields.refuse(where, "a value, a number of samples, a dtype, a device", value)


def _returns(value: object, known: int, depth: int = 0) -> None:
    where = "program.returns"
    if value is None:
        return
    held = fields.mapping(value, where)
    if len(held) != 1 or depth > _DEEPEST:
        fields.refuse(where, "a value, list, tuple or dict", value)
    ((key, inner),) = held.items()
    if key == "value":
        _marker(value, where, known)
    elif key in ("list", "tuple"):
        for each in fields.sequence(inner, where):
            _returns(each, known, depth + 1)
    elif key in ("dict", "named"):
        for each in fields.mapping(inner, where).values():
            _returns(each, known, depth + 1)
    else:
        fields.refuse(where, "a value, list, tuple or dict", value)


class _Bounded(fx.Interpreter):
    """Runs a program and refuses values of absurd size."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.numel() > _LARGEST:
            raise ArtifactError(f"program: {n} would have {value.numel()} elements")
        return value


def _try_out(document: Document, specs: Mapping[str, TensorSpec]) -> None:
    """Runs the program once on tensors that have shapes and no memory."""

    def empty(shape: tuple[int, ...], dtype: str) -> Tensor:
        return torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")

    try:
        with FakeTensorMode(), torch.no_grad():
            tensors = {name: empty(spec.shape, spec.dtype) for name, spec in specs.items()}
            inputs = [
                each["equals"] if "equals" in each else empty(tuple(each["shape"]), each["dtype"])
                for each in document["inputs"]
            ]
            _Bounded(build(document, tensors)).run(*inputs)
    except ArtifactError:
        raise
    except Exception as error:  # whatever an operator says to sizes that don't fit
        message = " ".join(str(error).split())[:200]
        raise ArtifactError(f"program: it does not run on its own tensors: {message}") from error

"""From a module to its operators: ``torch.export`` → :class:`Network`.

The model is exported with weights on the meta device, so nothing is computed, nothing is copied
and the caller's model is never touched. A model whose code mixes in tensors of a real device, or
makes tensors of numbers of its own, is exported from a copy that shares the weights instead.
"""

from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.utils._pytree import TreeSpec, tree_leaves

from bequest.errors import BequestError, ModelError
from bequest.execution.copies import duplicate, private_copy, to_be_run
from bequest.execution.devices import device_of
from bequest.execution.modules import first_lines, misfit
from bequest.execution.threads import ONE_AT_A_TIME
from bequest.graph.admission import admit
from bequest.graph.functional import functional
from bequest.graph.inputs import Inputs, mapped, normalise_inputs
from bequest.graph.numbers import Call, Recorder
from bequest.graph.products import as_layers

MOST_OPERATORS = 20_000
"""Operators that a network may run when it is traced, which takes about a minute then. Tracing
unrolls loops, so there must be an end; networks of timm have up to some 2,500."""


@dataclass(frozen=True)
class Network:
    """A traced model: functional ATen operators in order, and who owns each tensor.

    Attributes:
        nodes: placeholders, operators and the output, in the order of execution; ``meta["val"]``
            of each holds a tensor of the right shape without data.
        tensors: placeholder name → qualified name of the parameter or buffer (one name per
            tensor: shared tensors have one).
        inputs: names of the placeholders that are the model's input tensors.
        constants: placeholder name → tensor that the model's code makes.
        returns: the structure of the model's result over the values that the output node holds;
            None where running the model changes its buffers too.
        calls: the operators that the code ran before they were traced, and their numbers.
    """

    nodes: tuple[fx.Node, ...]
    tensors: Mapping[str, str]
    inputs: frozenset[str]
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    returns: TreeSpec | None = None
    calls: tuple[Call, ...] = ()

    @property
    def output(self) -> fx.Node:
        """The node that returns."""
        return self.nodes[-1]


def module_of(node: fx.Node) -> str:
    """Qualified name of the module whose ``forward`` ran this operator ('' = the model itself)."""
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""


def operator_of(node: fx.Node) -> str:
    """The operator's name as a person would say it: ``conv2d``, ``add``, ``softmax``."""
    target = node.target
    return target.__name__.split(".")[0] if callable(target) else str(target)


def function_of(node: fx.Node) -> Callable[..., Any]:
    """What runs an operator on values with data; a view is a reshape there.

    Values lie in memory as the weights' format has it, which tracing can't foresee. Code that
    counts whole numbers, as routers of experts do, turns them to real ones on a CPU, where there is
    no other way, and not on the device without data. ``copy``, which writes parts of values, has no
    derivative of its own.
    """
    replaced: dict[str, Any] = {"view": torch.reshape, "histc": _counted, "copy": _copied}
    return cast(Callable[..., Any], replaced.get(operator_of(node), node.target))


def _counted(values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    real = values.is_floating_point() or values.device.type != "cpu"
    return torch.histc(values if real else values.float(), *args, **kwargs)


def _copied(onto: Tensor, values: Tensor, _: bool = False) -> Tensor:
    return values.to(onto).expand_as(onto).clone()


def place_of(node: fx.Node) -> str:
    """Operator and module, for messages: ``softmax in 'blocks.0.attn'``."""
    module = module_of(node)
    return f"{operator_of(node)} in '{module}'" if module else operator_of(node)


def trace(model: nn.Module, example_inputs: Any) -> Network:
    """Exports ``model`` in evaluation mode; the model is not changed.

    Args:
        model: any module that ``torch.export`` captures.
        example_inputs: a tensor, tuple or dict; only shapes, dtypes and device matter.

    Raises:
        ModelError: the model is refused by name (scripted, quantised, ...) or can't be exported;
            the message says where. Or it runs more than :data:`MOST_OPERATORS` operators.
        UsageError: the inputs do not fit the model.
    """
    admit(model)
    try:
        calls = run_shapes(model, example_inputs)  # ends at too many, which no export does
        return replace(trace_shapes(model, example_inputs), calls=tuple(calls))
    except BequestError:
        raise
    except Exception as error:
        refuse_inputs(model, example_inputs)
        raise ModelError(
            f"torch.export can't capture {type(model).__name__}: "
            f"{first_lines(error)}{_where(error)}"
        ) from error


def require_runnable(model: nn.Module, example_inputs: Any) -> None:
    """Raises what :func:`trace` would, as far as that shows without tracing."""
    admit(model)
    refuse_inputs(model, example_inputs)


def trace_shapes(
    model: nn.Module, example_inputs: Any, change: Callable[[nn.Module], None] | None = None
) -> Network:
    """Exports a copy of ``model`` after ``change`` was made to it, without data where possible.

    Raises:
        Exception: whatever torch.export, the model's code or ``change`` raises.
    """
    inputs = inputs_for(model, example_inputs)
    try:
        network = _export(_changed(meta_copy(model), change), to_meta(inputs))
        _place(network, device_of(model))
    except BequestError:
        raise
    except Exception:  # any failure: the real copy either works or gives the error to report
        return _export(_changed(private_copy(model), change), inputs)
    if change is None and any(tensor.is_meta for tensor in network.constants.values()):
        # Numbers that the code writes into tensors beside its inputs are lost on the meta device.
        return _export(private_copy(model), inputs)
    return network


def inputs_for(model: nn.Module, example_inputs: Any) -> Inputs:
    """The example as the model's arguments, on its device; one without data gets zeros."""
    device = device_of(model)

    def move(tensor: Tensor) -> Tensor:
        if tensor.is_meta and device.type != "meta":
            return torch.zeros_like(tensor, device=device)
        return tensor.to(device, copy=True)  # code may write into its input

    inputs: Inputs = mapped(normalise_inputs(example_inputs), move)
    return inputs


def _place(network: Network, device: torch.device) -> None:
    """Tensors that the code makes are made where the inputs are, not on the meta device."""
    for node in network.nodes:
        if node.kwargs.get("device") == torch.device("meta"):
            node.kwargs = {**node.kwargs, "device": device}


def run_shapes(
    model: nn.Module, example_inputs: Any, change: Callable[[nn.Module], None] | None = None
) -> list[Call]:
    """Runs a copy of ``model`` after ``change`` was made to it, without data where possible.

    Returns:
        The operators that ran and the numbers that they computed with.

    Raises:
        ModelError: there are more than :data:`MOST_OPERATORS` of them.
        Exception: whatever the model's code or ``change`` raises.
    """
    inputs = inputs_for(model, example_inputs)

    def recorded(copied: nn.Module, inputs: Inputs, *, without_data: bool) -> list[Call]:
        args, kwargs = inputs
        _changed(copied, change)
        recorder = Recorder(type(model).__name__, MOST_OPERATORS, without_data=without_data)
        with torch.no_grad(), recorder:
            copied(*args, **kwargs)
        return recorder.calls

    try:
        return recorded(meta_copy(model), to_meta(inputs), without_data=True)
    except BequestError:
        raise
    except Exception:  # as in trace_shapes
        return recorded(private_copy(model), inputs, without_data=False)


def results_of(model: nn.Module, example_inputs: Any, *, with_data: bool = False) -> Any:
    """What a copy of ``model`` returns, without data where possible and not asked for.

    Raises:
        Exception: whatever the model's code raises.
    """
    inputs = inputs_for(model, example_inputs)
    with torch.no_grad():
        if not with_data:
            with suppress(Exception):  # as in trace_shapes
                args, kwargs = to_meta(inputs)
                return meta_copy(model)(*args, **kwargs)
        args, kwargs = inputs
        return private_copy(model)(*args, **kwargs)


def _changed(model: nn.Module, change: Callable[[nn.Module], None] | None) -> nn.Module:
    if change is not None:
        change(model)
    return model


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters and buffers have shapes but no data."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = (
            nn.Parameter(empty, requires_grad=tensor.requires_grad)
            if isinstance(tensor, nn.Parameter)
            else empty
        )
    return to_be_run(duplicate(model, memo))


def to_meta(inputs: Inputs) -> Inputs:
    """The same inputs on the meta device."""
    moved: Inputs = mapped(inputs, lambda tensor: tensor.to("meta"))
    return moved


def _export(model: nn.Module, inputs: Inputs) -> Network:
    args, kwargs = inputs
    with ONE_AT_A_TIME, _quiet_export(), torch.no_grad():
        program = functional(torch.export.export(model, args, kwargs))
    held = named_tensors(model)
    first: dict[int, str] = {}
    for name, tensor in held.items():
        first.setdefault(id(tensor), name)
    tensors: dict[str, str] = {}
    constants: dict[str, Tensor] = {}
    signature = program.graph_signature
    for spec in signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            tensors[spec.arg.name] = first[id(held[cast(str, spec.target)])]
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            constants[spec.arg.name] = cast(Tensor, program.constants[cast(str, spec.target)])
    if any(isinstance(tensor, FakeTensor) for tensor in constants.values()):
        _refuse_fakes(model)
    given = frozenset(
        spec.arg.name
        for spec in signature.input_specs
        if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    )
    as_layers(program.graph, tensors.keys(), given)
    pure = all(spec.kind is OutputKind.USER_OUTPUT for spec in signature.output_specs)
    return Network(
        nodes=tuple(program.graph.nodes),
        tensors=tensors,
        inputs=given,
        constants=constants,
        returns=program.call_spec.out_spec if pure else None,
    )


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer under each of its names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


@contextmanager
def _quiet_export() -> Iterator[None]:
    """What torch.export logs and warns of at length is reported once, in one line, if at all."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def refuse_inputs(model: nn.Module, example_inputs: Any) -> None:
    """Raises UsageError where the model itself fails on the example inputs."""
    args, kwargs = inputs_for(model, example_inputs)
    run: Callable[..., Any] = private_copy(model)
    try:
        with torch.no_grad():
            run(*args, **kwargs)
    except Exception as error:
        _refuse_fakes(model)
        raise misfit(model, (args, kwargs), error, "example inputs") from error


def _refuse_fakes(model: nn.Module) -> None:
    """Raises ModelError where an attribute holds a tensor without data and the model reads it."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if any(isinstance(leaf, FakeTensor) for leaf in tree_leaves(value)):
                raise ModelError(
                    f"'{f'{name}.{attribute}'.lstrip('.')}' holds a tensor without data, which an "
                    f"export or a compilation has left there, and {type(model).__name__} reads it; "
                    "set the attribute to what it was, or load the model anew"
                )


def _where(error: BaseException) -> str:
    """File and line of the model's own code in which torch.export gave up."""
    ours = Path(__file__).parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if ours not in path.parents and "torch" not in path.parts and path.exists():
            return f" (at {path.name}:{frame.lineno}: {frame.line})"
    return ""

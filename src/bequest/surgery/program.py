"""A network without its class: the traced operators as plain data, run as a module.

A :class:`Document` is JSON: operators by name, constants, and references to tensors and to results
of earlier operators. Only ATen operators that compute tensors from tensors and touch nothing else
are let in: those that have a rule, PyTorch's core set, and :data:`PLAIN`. :class:`Program` runs
one.

Constants in JSON::

    {"value": 3}            the result of step 3 (inputs first, then tensors, then operators)
    {"samples": 2}          2 × the batch size, that of the first input
    {"dtype": "float32"}    also "memory_format"
    {"device": "input"}     the device of the first input
    {"float": "-inf"}       a number that JSON can't hold
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from bequest.errors import ArtifactError
from bequest.graph.rules.base import known_operators

Document = dict[str, Any]


PLAIN = frozenset(
    "affine_grid_generator angle atleast_1d atleast_2d atleast_3d bilinear block_diag "
    "broadcast_tensors bucketize cartesian_prod cdist channel_shuffle column_stack complex "
    "copysign cosine_similarity count_nonzero cross cummax cummin deg2rad diag diag_embed "
    "diagonal_scatter digamma dist dstack erfinv fft_fft fft_fft2 fft_fftn fft_fftshift fft_hfft "
    "fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2 fft_irfftn "
    "fft_rfft fft_rfft2 fft_rfftn float_power fmax fmin grid_sampler grid_sampler_3d heaviside "
    "hstack i0 im2col imag index_add index_copy index_fill inner isclose isfinite isin kron "
    "kthvalue lgamma linalg_cross linalg_det linalg_inv linalg_matrix_exp linalg_matrix_norm "
    "linalg_multi_dot linalg_norm linalg_solve linalg_vecdot logaddexp logaddexp2 logcumsumexp "
    "masked_scatter max_unpool2d max_unpool3d median meshgrid mode nanmean nansum "
    "native_channel_shuffle outer pairwise_distance pixel_shuffle pixel_unshuffle polar polygamma "
    "quantile rad2deg real renorm repeat_interleave rot90 row_stack scatter searchsorted signbit "
    "sinc special_erfcx special_i0e special_i1 special_i1e special_log_ndtr special_ndtr "
    "special_ndtri special_xlog1py special_zeta tensordot tile trace tril tril_indices triu "
    "triu_indices unfold vander vdot view_as_complex view_as_real vstack".split()
)
"""Names of ATen operators without a rule that programs may hold all the same. No channel leaves
what they read, so they are written down as they are."""


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
    values: list[fx.Node] = [graph.placeholder(each["name"]) for each in document["inputs"]]
    values += [graph.get_attr(name) for name in document["tensors"]]
    held = {name: tensors[name] for name in document["tensors"]}
    root = _holder(held, frozenset(document["parameters"]))
    reader = _Reader(graph, values)
    for step in document["steps"]:
        name, args, kwargs = step
        target = resolve(name)
        named = {key: reader(each) for key, each in kwargs.items()}
        values.append(graph.call_function(target, tuple(reader(args)), named))
    graph.output(_structure(graph, document["returns"], reader))
    program = Program(root, graph, class_name="Program")
    program.meta["document"] = document
    return program


def resolve(name: str) -> Any:
    """The function of a step: ``aten.view.default``, or ``getitem``.

    Raises:
        ArtifactError: it is no operator that programs may hold.
    """
    if name == "getitem":
        return operator.getitem
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload or "?", None)
    if namespace == "aten" and isinstance(found, torch._ops.OpOverload) and _may_run(packet, found):
        return found
    raise ArtifactError(f"program: expected an ATen operator that bequest knows, found {name!r}")


_DYNAMIC = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def _may_run(name: str, found: torch._ops.OpOverload) -> bool:
    """Whether an operator computes tensors, or checks them, and does nothing else.

    Nothing with a rule reads files or writes to its operands. Of the rest, what makes tensors whose
    shape depends on numbers in others can't be tried out without data.
    """
    if found._schema.is_mutable:
        return False
    if name in known_operators():
        return name != "repeat_interleave" or found._overloadname == "self_int"
    plain = name in PLAIN or torch.Tag.core in found.tags
    tensors = all(str(one.type) in ("Tensor", "List[Tensor]") for one in found._schema.returns)
    return plain and tensors and _DYNAMIC.isdisjoint(found.tags)


class _Reader:
    """From JSON to arguments of a graph."""

    def __init__(self, graph: fx.Graph, values: list[fx.Node]) -> None:
        self._graph = graph
        self._values = values
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
            self._batch = self._graph.call_function(size, (self._values[0], 0))
        if each == 1:
            return self._batch
        return self._graph.call_function(operator.mul, (self._batch, each))

    def _device_of_input(self) -> fx.Node:
        if self._device is None:
            self._device = self._graph.call_function(getattr, (self._values[0], "device"))
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

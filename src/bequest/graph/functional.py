"""Exported operators in the form in which rules read them, where possible without a second trace.

``torch.export`` leaves operators as the code calls them: some write into their inputs, some stand
for others. ``run_decompositions`` brings all into one form, for which it traces the program twice
more: two thirds of what an export takes. A program of nothing but the operators that are listed
here gets the same form by rewriting its nodes; any other one is traced.

In two places the form differs, in what no rule reads: a view behind a write keeps its place and its
module, and what is cut into parts behind one is cut once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

_aten = torch.ops.aten

OWN = frozenset(
    "conv1d.default conv2d.default conv3d.default conv_transpose2d.input linear.default "
    "matmul.default scaled_dot_product_attention.default embedding.default layer_norm.default "
    "group_norm.default add.Tensor sub.Tensor mul.Tensor div.Tensor neg.default relu.default "
    "relu6.default leaky_relu.default elu.default gelu.default silu.default sigmoid.default "
    "tanh.default softplus.default hardtanh.default hardswish.default hardsigmoid.default "
    "softmax.int mean.dim max_pool2d.default avg_pool2d.default adaptive_avg_pool2d.default "
    "cat.default stack.default roll.default bmm.default glu.default prelu.default cos.default "
    "sin.default clamp.default amax.default sum.dim_IntList rms_norm.default instance_norm.default "
    "max_pool1d.default max_pool3d.default conv_transpose1d.default conv_transpose3d.input "
    "upsample_nearest2d.vec upsample_nearest3d.vec index.Tensor clamp.Tensor pixel_shuffle.default "
    "pixel_unshuffle.default pow.Tensor_Scalar rsqrt.default rsub.Scalar".split()
)
"""Operators, with their overloads, that both forms have alike, whose results are their own."""

VIEWS = frozenset(
    "view.default transpose.int permute.default unsqueeze.default select.int slice.Tensor "
    "expand.default split_with_sizes.default split.Tensor unbind.int squeeze.dim einsum.default "
    "pad.default repeat.default".split()
)
"""The same, but what they give may lie in the memory of what they read."""


WRITING = frozenset(
    "relu_.default relu6_.default leaky_relu_.default elu_.default silu_.default sigmoid_.default "
    "tanh_.default hardtanh_.default hardswish_.default hardsigmoid_.default add_.Tensor "
    "mul_.Tensor".split()
)
"""Operators that write their result into their first input."""


def functional(program: ExportedProgram) -> ExportedProgram:
    """The program in the form of rules.

    Returns:
        The program itself with another graph, whose code and signature still tell of the one
        before, or one that was traced.
    """
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    if not all(_is_known(node) for node in nodes):
        traced: ExportedProgram = program.run_decompositions({})
        return traced
    for node in nodes:
        name = _name(node)
        if name in WRITING:
            _write_apart(program.graph, node)
        elif name in _FORMS:
            _FORMS[name][1](program.graph, node)
    program.graph.eliminate_dead_code()
    return program


def _name(node: fx.Node) -> str:
    """``relu.default``, ``add_.Tensor``; ``getitem`` for a part of several results."""
    return "getitem" if node.target is operator.getitem else str(node.target).removeprefix("aten.")


def _is_known(node: fx.Node) -> bool:
    name = _name(node)
    if name in _FORMS:
        return _FORMS[name][0](node)
    return (
        name in OWN or name in VIEWS or name == "getitem" or (name in WRITING and _may_write(node))
    )


def _may_write(node: fx.Node) -> bool:
    """Whether nothing else shows the memory that is written, and its type is the result's."""
    written, *others = node.all_input_nodes
    if written is not node.args[0] or not all(_is_like(node, one) for one in (written, *others)):
        return False
    names = _names_of(written)
    readers = {user for name in names for user in name.users if user < node}
    return all(_is_apart(one) for one in (*names, *readers))


def _names_of(value: fx.Node) -> list[fx.Node]:
    """All nodes that stand for the memory of a value that is written into."""
    first = value
    while _name(first) in WRITING:
        first = first.all_input_nodes[0]
    names = [first]
    for name in names:
        names += [one for one in name.users if _name(one) in WRITING and one.args[0] is name]
    return names


def _is_like(node: fx.Node, other: fx.Node) -> bool:
    one, two = node.meta["val"], other.meta["val"]
    return bool(one.is_floating_point() and (one.dtype, one.device) == (two.dtype, two.device))


def _is_apart(node: fx.Node) -> bool:
    """Whether its result lies in memory of its own."""
    name = _name(node)
    return node.op == "call_function" and (name in OWN or name in WRITING or name == _NORM)


def _write_apart(graph: fx.Graph, node: fx.Node) -> None:
    """The same operator with a result of its own, for those who read the value afterwards."""
    written, *others = node.args
    assert isinstance(written, fx.Node)
    name, overload = _name(node).split(".")
    with graph.inserting_before(node):
        if name == "relu6_":
            new = graph.call_function(_aten.hardtanh.default, (written, 0, 6))
        else:
            target = getattr(getattr(_aten, name.removesuffix("_")), overload)
            new = graph.call_function(target, (written, *others), node.kwargs)
    new.meta = dict(node.meta)
    written.replace_all_uses_with(new, lambda user: user > node)
    _replace(graph, node, new)


def _normalise(graph: fx.Graph, node: fx.Node) -> None:
    x, weight, bias, mean, variance, _, momentum, eps, _ = node.args
    given = (x, weight, bias, mean, variance, momentum, eps)
    with graph.inserting_before(node):
        norm = graph.call_function(_aten._native_batch_norm_legit_no_training.default, given)
        new = graph.call_function(operator.getitem, (norm, 0))
    value = node.meta["val"]
    norm.meta = {**node.meta, "val": (value, value.new_empty(0), value.new_empty(0))}
    new.meta = dict(node.meta)
    _replace(graph, node, new)


def _copy(graph: fx.Graph, node: fx.Node) -> None:
    """What training alone computes with copies its input."""
    with graph.inserting_before(node):
        new = graph.call_function(_aten.clone.default, (node.args[0],))
    new.meta = dict(node.meta)
    _replace(graph, node, new)


def _lay_out(graph: fx.Graph, node: fx.Node) -> None:
    given = node.args[0]
    assert isinstance(given, fx.Node)
    _replace(graph, node, given if given.meta["val"].is_contiguous() else _packed(graph, node))


def _packed(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """The node's input in rows without gaps."""
    given = node.args[0]
    assert isinstance(given, fx.Node)
    with graph.inserting_before(node):
        new = graph.call_function(
            _aten.clone.default, (given,), {"memory_format": torch.contiguous_format}
        )
    new.meta = {**node.meta, "val": given.meta["val"].clone(memory_format=torch.contiguous_format)}
    return new


def _reshape(graph: fx.Graph, node: fx.Node) -> None:
    """A view where the input's strides allow one, of a copy where they don't."""
    given, shape = node.args[0], list(node.meta["val"].shape)
    assert isinstance(given, fx.Node)
    before = given.meta["val"]
    if _name(node) == "flatten.using_ints" and list(before.shape) == shape:
        return _replace(graph, node, given)
    if _has_view(before, shape):
        target = _aten.view.default
        if _name(node) == "reshape.default" and before.is_contiguous():
            shape = list(node.args[1])  # type: ignore[arg-type]  # as it was written
    else:
        given, target = _packed(graph, node), _aten._unsafe_view.default
    with graph.inserting_before(node):
        new = graph.call_function(target, (given, shape))
    new.meta = dict(node.meta)
    return _replace(graph, node, new)


def _has_view(value: Tensor, shape: list[int]) -> bool:
    """Whether the strides allow it; tensors of a tracer take views that no real one has."""
    try:
        torch.empty_strided(value.shape, value.stride(), device="meta").view(shape)
    except RuntimeError:
        return False
    return True


def _split(graph: fx.Graph, node: fx.Node) -> None:
    given, count, *dim = node.args
    with graph.inserting_before(node):
        size = -(-_length(node) // count)  # type: ignore[operator]
        new = graph.call_function(_aten.split.Tensor, (given, size, *dim))
    new.meta = dict(node.meta)
    _replace(graph, node, new)


def _length(node: fx.Node) -> int:
    """Of the dimension that is cut into chunks."""
    given, _, *dim = node.args
    assert isinstance(given, fx.Node)
    return int(given.meta["val"].shape[dim[0] if dim else 0])


def _replace(graph: fx.Graph, node: fx.Node, new: fx.Node) -> None:
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _always(_: fx.Node) -> bool:
    return True


def _in_evaluation(node: fx.Node) -> bool:
    return node.args[-1] is False and not node.kwargs


def _with_stored_statistics(node: fx.Node) -> bool:
    return len(node.args) == 9 and None not in node.args[3:5] and node.args[5] is False


_NORM = "batch_norm.default"
_FORMS: dict[str, tuple[Callable[[fx.Node], bool], Callable[[fx.Graph, fx.Node], None]]] = {
    _NORM: (_with_stored_statistics, _normalise),
    "dropout.default": (_in_evaluation, _copy),
    "contiguous.default": (lambda node: len(node.args) == 1 and not node.kwargs, _lay_out),
    "reshape.default": (_always, _reshape),
    "flatten.using_ints": (_always, _reshape),
    "unflatten.int": (_always, _reshape),
    "chunk.default": (lambda node: not node.kwargs and _length(node) > 0, _split),
}
"""Operators that stand for others: when they do, and what writes that down."""

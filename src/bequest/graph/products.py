"""Products with a parameter are linear layers, however they are written.

``x @ w.T + b``, ``addmm(b, x, w.t())`` and ``einsum("...i,oi->...o", x, w)`` compute what
``linear(x, w, b)`` does; ``addmm(b, x.view(-1, n), w).view(...)`` of GPT-2 computes
``linear(x, w.t(), b)``. In the traced graph they become that operator, so that everything which
knows layers knows them, too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx

_LINEAR = torch.ops.aten.linear.default
_TURN = torch.ops.aten.t.default


def as_layers(graph: fx.Graph, parameters: Collection[str], inputs: Collection[str]) -> None:
    """Rewrites products of what depends on the inputs with a parameter, in place.

    Args:
        graph: functional ATen operators.
        parameters: names of the placeholders that are parameters or buffers.
        inputs: of those that are the network's inputs.
    """
    steady: set[fx.Node] = set()
    for node in list(graph.nodes):
        if node.name not in inputs and steady.issuperset(node.all_input_nodes):
            steady.add(node)
        found = _product(node, parameters)
        if found is None or found[0] in steady:
            continue
        data, weight, bias = found
        first, last = node, node
        if bias is None:
            last, bias = _with_bias(node, parameters)
        data, last = _unfolded(data, last)
        with graph.inserting_before(first):
            if weight is _matrix(node, parameters):
                weight = graph.call_function(_TURN, (weight,))
                (turned,) = weight.all_input_nodes
                weight.meta = {**node.meta, "val": turned.meta["val"].t()}
        with graph.inserting_before(last):
            layer = graph.call_function(_LINEAR, (data, weight, *([] if bias is None else [bias])))
        layer.meta = {**node.meta, "val": last.meta["val"]}
        last.replace_all_uses_with(layer)
        _forget(graph, last)


def parameter_of(weight: fx.Node) -> tuple[fx.Node, bool]:
    """What a layer's weight is before it is transposed, and whether it is."""
    source = weight.all_input_nodes[0] if weight.target is _TURN else None
    return (weight, False) if source is None or source.op != "placeholder" else (source, True)


def _forget(graph: fx.Graph, node: fx.Node) -> None:
    """Takes out what nobody reads any more."""
    if node.op == "call_function" and not node.users:
        sources = node.all_input_nodes
        graph.erase_node(node)
        for source in sources:
            _forget(graph, source)


def _product(
    node: fx.Node, parameters: Collection[str]
) -> tuple[fx.Node, fx.Node, fx.Node | None] | None:
    """Input, weight (out, in) and bias of a product with a parameter; None where it is none."""
    args: Any = node.args
    match str(node.target):
        case "aten.matmul.default" | "aten.mm.default":
            data, weight, bias = args[0], _rows(args[1], parameters), None
        case "aten.addmm.default" if not node.kwargs and len(args) == 3:
            bias, data, weight = args[0], args[1], _rows(args[2], parameters)
        case "aten.einsum.default" if len(args[1]) == 2:
            data, bias = args[1][0], None
            weight = _known(args[1][1], parameters) if _rows_by_columns(args[0]) else None
        case _:
            return None
    if weight is None or data.meta["val"].ndim < 2:
        return None
    if bias is not None and bias.meta["val"].shape != node.meta["val"].shape[-1:]:
        return None
    return data, weight, bias


def _known(node: fx.Node, parameters: Collection[str]) -> fx.Node | None:
    """The node where it is a matrix among the parameters."""
    return node if node.name in parameters and node.meta["val"].ndim == 2 else None


def _rows(node: fx.Node, parameters: Collection[str]) -> fx.Node | None:
    """The parameter that a second factor is, or of which it is the transposed matrix."""
    return _known(node, parameters) or _turned(node, parameters)


def _matrix(node: fx.Node, parameters: Collection[str]) -> fx.Node | None:
    """The parameter that is a product's second factor as it is, (in, out)."""
    product = str(node.target).split(".")[1] in ("matmul", "mm", "addmm")
    second: Any = node.args[-1]
    return _known(second, parameters) if product else None


def _turned(node: fx.Node, parameters: Collection[str]) -> fx.Node | None:
    """The parameter of which a node is the transposed matrix."""
    args: Any = node.args
    match str(node.target):
        case "aten.t.default" | "aten.numpy_T.default" | "aten.mT.default":
            pass
        case "aten.permute.default" if [int(dim) % 2 for dim in args[1]] == [1, 0]:
            pass
        case "aten.transpose.int" if int(args[1]) % 2 != int(args[2]) % 2:
            pass
        case _:
            return None
    return _known(args[0], parameters)


def _rows_by_columns(equation: str) -> bool:
    """Whether an einsum is ``...i,oi->...o``, in whatever letters."""
    inputs, _, output = equation.replace(" ", "").partition("->")
    data, _, weight = inputs.partition(",")
    if len(weight) != 2 or weight[0] in data or weight[0] == weight[1]:
        return False
    return data[-1:] == weight[1] and output == f"{data[:-1]}{weight[0]}"


def _with_bias(node: fx.Node, parameters: Collection[str]) -> tuple[fx.Node, fx.Node | None]:
    """The addition that alone reads a product, and the bias that it adds; else the product."""
    users = list(node.users)
    if len(users) == 1 and str(users[0].target) == "aten.add.Tensor" and not users[0].kwargs:
        added = [value for value in users[0].all_input_nodes if value is not node]
        width = node.meta["val"].shape[-1:]
        if len(added) == 1 and added[0].name in parameters and added[0].meta["val"].shape == width:
            return users[0], added[0]
    return node, None


def _unfolded(data: fx.Node, last: fx.Node) -> tuple[fx.Node, fx.Node]:
    """What a product reads and writes without the views that lay tokens out in one dimension."""
    users, views = list(last.users), ("aten.view.default", "aten.reshape.default")
    if str(data.target) not in views or len(users) != 1 or str(users[0].target) not in views:
        return data, last
    (source,), (user,) = data.all_input_nodes[:1], users
    before, after = source.meta["val"].shape, user.meta["val"].shape
    folded = data.meta["val"].shape[-1] == before[-1] and before[:-1] == after[:-1]
    return (source, user) if folded and after[-1] == last.meta["val"].shape[-1] else (data, last)

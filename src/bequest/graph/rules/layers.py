"""Rules for layers with weights: convolutions, linear layers, embeddings."""

from __future__ import annotations

from math import prod
from typing import Literal

from torch import fx

from bequest.graph.geometry import Geometry, arguments, geometry_of
from bequest.graph.ledger import Labels, Layout
from bequest.graph.products import parameter_of
from bequest.graph.reading import Read, Write
from bequest.graph.rules.base import Step, rule
from bequest.graph.rules.elementwise import aligned
from bequest.graph.rules.products import multiplied
from bequest.graph.trace import operator_of


@rule("conv1d", "conv2d", "conv3d", role="layer")
def convolution(step: Step) -> Layout:
    """Plain, grouped and depthwise convolution; weight (out, in/groups, kernel...)."""
    data, weight, bias = step.arg(0, "input"), step.arg(1, "weight"), step.arg(2, "bias")
    geometry = geometry_of(step.node)
    channel = step.ndim - len(geometry.kernel) - 1
    out = _labels(step, weight, 0)
    _tie_bias(step, bias, out)
    _freeze_kernel(step, weight)
    if geometry.groups == 1:
        _consume(step, data, channel, weight, bias, dim=1, zero_padded=geometry.pads)
        _produce(step, weight, bias, 0, out, "conv")
    elif weight.meta["val"].shape[1] == 1:
        _depthwise(step, data, channel, out, geometry.groups)
    else:
        _grouped(step, data, channel, weight, bias, out, geometry)
    return _result(step, data, channel, out)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", role="layer")
def transposed_convolution(step: Step) -> Layout:
    """Transposed convolution; weight (in, out/groups, kernel...).

    Outputs at borders and between strides sum fewer kernel positions, so a constant per channel is
    never exact behind it: the consumer counts as zero padded.
    """
    data, weight, bias = step.arg(0, "input"), step.arg(1, "weight"), step.arg(2, "bias")
    geometry, shape = geometry_of(step.node), weight.meta["val"].shape
    channel = step.ndim - len(geometry.kernel) - 1
    _freeze_kernel(step, weight)
    if geometry.groups == 1:
        out = _labels(step, weight, 1)
        _tie_bias(step, bias, out)
        spread = prod(geometry.stride)
        _consume(step, data, channel, weight, bias, dim=0, zero_padded=True, spread=spread)
        _produce(step, weight, bias, 1, out, "conv")
    elif geometry.groups == shape[0] and shape[1] == 1:
        out = _labels(step, weight, 0)
        _tie_bias(step, bias, out)
        _depthwise(step, data, channel, out, geometry.groups)
    else:
        out = step.ledger.rest(
            step.shape[channel], f"grouped transposed convolution ({step.place})"
        )
        _tie_bias(step, bias, out)
        for labels in (step.layout(data).dims[channel], *step.layout(weight).dims):
            step.freeze(labels, "grouped transposed convolution")
    return _result(step, data, channel, out)


@rule("linear", role="layer")
def linear(step: Step) -> Layout:
    """A linear map y = x·Wᵀ + b over the last dimension; weight (out, in), or (in,)."""
    data, weight, bias = step.arg(0, "input"), step.arg(1, "weight"), step.arg(2, "bias")
    if len(weight.meta["val"].shape) == 1:
        return multiplied(step)
    step.ignore([weight])  # a parameter that is transposed before is read in its own layout
    weight, turned = parameter_of(weight)
    rows, columns = (1, 0) if turned else (0, 1)
    out = _labels(step, weight, rows)
    if bias is not None and bias.meta["val"].shape != step.shape[-1:]:
        return _shifted(step, data, weight, bias)
    _tie_bias(step, bias, out)
    last = len(data.meta["val"].shape) - 1
    _consume(step, data, last, weight, bias, dim=columns, zero_padded=False)
    _produce(step, weight, bias, rows, out, "linear")
    return _result(step, data, last, out)


def _shifted(step: Step, data: fx.Node, weight: fx.Node, bias: fx.Node) -> Layout:
    """A linear map plus a tensor of another shape than (out,), for which layers have no place."""
    last = step.ndim - 1
    out = _labels(step, weight, 0)
    _consume(step, data, last, weight, None, dim=1, zero_padded=False)
    _produce(step, weight, None, 0, out, "linear")
    product = step.layout(data).with_dims((*step.layout(data).dims[:last], out))
    step.reading.roles[step.node] = "join"
    shapes = [step.shape, tuple(bias.meta["val"].shape)]
    return aligned(step, [product, step.layout(bias)], shapes)


@rule("embedding", role="layer")
def embedding(step: Step) -> Layout:
    """Rows of a table (vocabulary, width): the width can shrink, the vocabulary can't."""
    table, indices = step.arg(0, "weight"), step.arg(1, "indices")
    rows, width = step.layout(table).dims
    step.freeze(rows, "is looked up by index")
    out = _labels(step, table, 1) if width is not None else None
    if out is not None:
        _produce(step, table, None, 1, out, "linear")
    return Layout((*step.layout(indices).dims, out), step.place)


def _labels(step: Step, weight: fx.Node, dim: int) -> Labels:
    """The labels of a weight's dimension; a computed weight may have lost them."""
    labels = step.layout(weight).dims[dim]
    if labels is not None:
        return labels
    size = weight.meta["val"].shape[dim]
    name = step.tensor_name(weight)
    if name is not None:
        return step.ledger.slot(name, dim, size)  # a single channel
    return step.ledger.rest(size, f"the weight is computed ({step.place})")


def _tie_bias(step: Step, bias: fx.Node | None, out: Labels) -> None:
    if bias is not None:
        step.ledger.tie(out, _labels(step, bias, 0))


def _freeze_kernel(step: Step, weight: fx.Node) -> None:
    """The positions of a kernel; those of a computed one may be channels of other layers."""
    for labels in step.layout(weight).dims[2:]:
        step.freeze(labels, "is a dimension of a kernel")


def _consume(
    step: Step,
    data: fx.Node,
    channel: int,
    weight: fx.Node,
    bias: fx.Node | None,
    *,
    dim: int,
    zero_padded: bool,
    spread: int = 1,
) -> None:
    """Input channel i reads index i of the weight's dimension ``dim``: they leave together."""
    columns = _labels(step, weight, dim)
    layout = step.layout(data)
    labels = layout.dims[channel]
    if labels is None:
        step.freeze(columns, f"reads {layout.origin}")
        return
    step.ledger.tie(labels, columns)
    names = step.tensor_name(weight), step.tensor_name(bias)
    step.reading.reads.append(Read(step.node, *names, dim, labels, 1, zero_padded, spread))


def _produce(
    step: Step,
    weight: fx.Node,
    bias: fx.Node | None,
    dim: int,
    out: Labels,
    kind: Literal["conv", "linear"],
    groups: int = 1,
) -> None:
    names = step.tensor_name(weight), step.tensor_name(bias)
    whole = _rows_of(weight) if dim == 0 else weight
    if whole is not weight and step.tensor_name(whole) is not None:
        # Of a packed projection that is cut into weights the rows of all of them are one layer's.
        out = _labels(step, whole, 0)
        names = step.tensor_name(whole), step.tensor_name(None if bias is None else _rows_of(bias))
    step.reading.writes.append(Write(step.node, kind, *names, dim, out, groups))


def _rows_of(weight: fx.Node) -> fx.Node:
    """What a value is rows of, if an operator has cut them out; else the value itself."""
    name, cutter = operator_of(weight), weight
    if name == "getitem":
        (cutter,) = weight.all_input_nodes
        name = operator_of(cutter)
    if name not in ("slice", "split", "split_with_sizes", "chunk"):
        return weight
    return cutter.all_input_nodes[0] if arguments(cutter)["dim"] == 0 else weight


def _depthwise(step: Step, data: fx.Node, channel: int, out: Labels, groups: int) -> None:
    """Filter i reads channel i // multiplier alone: it leaves with it, and the groups shrink."""
    step.reading.roles[step.node] = "join"
    layout = step.layout(data)
    labels = layout.dims[channel]
    if labels is None:
        step.freeze(out, f"reads {layout.origin} channel by channel")
    else:
        step.ledger.tie(out.reshape(groups, -1), labels[:, None])


def _grouped(
    step: Step,
    data: fx.Node,
    channel: int,
    weight: fx.Node,
    bias: fx.Node | None,
    out: Labels,
    geometry: Geometry,
) -> None:
    """Each block of outputs reads its own block of inputs: blocks keep equal numbers."""
    layout, groups = step.layout(data), geometry.groups
    labels = layout.dims[channel]
    step.freeze(step.layout(weight).dims[1], "is shared by the blocks of a grouped convolution")
    step.ledger.balance(out, groups, step.place)
    _produce(step, weight, bias, 0, out, "conv", groups)
    name = step.tensor_name(weight)
    if labels is None:
        return
    if name is None:
        step.freeze(labels, "the grouped weight is computed")
        return
    step.ledger.balance(labels, groups, step.place)
    read = Read(step.node, name, step.tensor_name(bias), 1, labels, groups, geometry.pads)
    step.reading.reads.append(read)


def _result(step: Step, data: fx.Node, channel: int, out: Labels) -> Layout:
    dims = list(step.layout(data).dims)
    for dim in range(channel + 1, len(dims)):
        step.freeze(dims[dim], "is a dimension that the kernel slides over")
        dims[dim] = None
    dims[channel] = out
    return Layout(tuple(dims), step.place)

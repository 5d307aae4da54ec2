"""The dense network whose removed channels are zero, with the weights that pruning has left.

The oracle that a pruned network is compared with: the traced graph runs at its dense widths and
with its dense constants, over the pruned network's tensors put back in their places, and after each
operator the channels that have left are set to zero. A smaller network that was cut right computes
the same. Norms over channels are the exception that pruning means to make: their statistics are
those of the channels that stay, so they run at the smaller width here too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bequest.execution.devices import device_of
from bequest.execution.paging import let_go
from bequest.execution.spans import spans
from bequest.graph.geometry import LAYERS, geometry_of
from bequest.graph.groups import Channels
from bequest.graph.interpreter import Interpreter
from bequest.graph.ledger import Layout
from bequest.graph.trace import named_tensors, operator_of
from bequest.surgery import operation
from bequest.surgery.cut import Cut
from bequest.surgery.operation import Surgery, TensorCut

_SUMMING = frozenset(
    "cdist cosine_similarity lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell "
    "rnn_relu_cell".split()
)
"""Operators in which a channel of one operand counts although it is zero in another."""

WIDE = 2**26
"""Bytes of a weight from which its layer runs some outputs at a time."""


class Masked(Interpreter):
    """The traced graph at dense widths, without what the removed channels say.

    Args:
        cut: who leaves.
        surgery: what made the pruned network.
        dense: the dense network's tensors by name.
        pruned: the pruned network, a module or a program, restored or not.
        precision: of floating-point numbers.
    """

    precision: torch.dtype

    def __init__(
        self,
        cut: Cut,
        surgery: Surgery,
        dense: Mapping[str, Tensor],
        pruned: nn.Module,
        precision: torch.dtype,
    ) -> None:
        self.reading = cut.channels.reading
        super().__init__(self.reading.network, device_of(pruned), precision)
        self._cut = cut
        self._dense, self._pruned, self._cuts = dense, named_tensors(pruned), cuts_of(surgery)
        self._biases = _new_biases(cut.channels, surgery, dense, pruned)

    @torch.no_grad()
    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """What the network returns: its results in order, without the channels that have left.

        Args:
            inputs: a value for every input tensor of the graph, in order.
        """
        self.interpret(inputs)
        returned: Any = self.network.output.args[0]
        return [self._left(one) for one in returned]

    def placeholder(self, node: fx.Node, feeds: Iterator[Any]) -> Any:
        """Inputs and constants; the network's tensors are made when they are asked for."""
        held = node.name in self.network.tensors
        return None if held else super().placeholder(node, feeds)

    def value(self, node: fx.Node) -> Any:
        """A node's value; a tensor of the network for as long as it is used alone."""
        name = self.network.tensors.get(node.name)
        return self.values[node] if name is None else self.tensor(name)

    def tensor(self, name: str) -> Tensor:
        """The pruned tensor at its places in the dense one."""
        dense = tensor = self._dense[name].detach()
        if name in self._pruned:  # a program holds the tensors that it reads alone
            tensor = put_back(dense, self._pruned[name].detach(), self._cuts[name])
            let_go(dense)
        return self.constant(tensor)

    def constant(self, tensor: Tensor) -> Tensor:
        """The same in the precision of this run."""
        tensor = tensor.to(self.device)
        return tensor.to(self.precision) if tensor.is_floating_point() else tensor

    def operator(self, node: fx.Node) -> Any:
        """What it computes, zero for channels that have left."""
        over = self.reading.normalised.get(node)
        if over is not None and self._cut.gone(over).any():
            value = self._at_new_width(node)
        elif self._is_wide(node):
            value = self._by_parts(node)
        else:
            value = super().operator(node)
        return self._masked(node, value)

    def arguments(
        self, node: fx.Node, value: Callable[[fx.Node], Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Its operands and numbers, and the bias that its layer was given."""
        if operator_of(node) in _SUMMING:
            args, kwargs = super().arguments(node, lambda one: self._masked(one, value(one)))
        else:
            args, kwargs = super().arguments(node, value)
        name = self._weight_of(node)
        if name in self._biases:
            args[2:3] = [self.constant(self._biases[name])]
        return args, kwargs

    def _is_wide(self, node: fx.Node) -> bool:
        """Whether it is a layer whose weight is better not held twice, and falls into outputs."""
        name = self._weight_of(node)
        if name is None or operator_of(node) not in LAYERS or node.kwargs:
            return False
        weight, cuts = self._dense[name], self._cuts[name]
        if weight.ndim < 2 or weight.numel() * self.precision.itemsize < WIDE:
            return False
        bias: Any = node.args[2] if len(node.args) > 2 else None
        by_output = bias is None or tuple(bias.meta["val"].shape) == (len(weight),)
        once = node.args.count(node.args[1]) == 1
        simple = sum(cut.dim == 0 for cut in cuts) <= 1 and all(cut.blocks == 1 for cut in cuts)
        geometry = geometry_of(node)
        whole = geometry.groups == 1 and not geometry.transposed  # each row is an output's
        return by_output and once and simple and whole

    def _weight_of(self, node: fx.Node) -> str | None:
        """The name of the tensor of the network that stands in the place of a layer's weight."""
        weight: Any = node.args[1] if len(node.args) > 1 else None
        return self.network.tensors.get(getattr(weight, "name", ""))

    def _by_parts(self, node: fx.Node) -> Tensor:
        """A layer's outputs, some after the others."""
        name = self._weight_of(node)
        assert name is not None
        args, kwargs = self.arguments(
            node, lambda one: None if one is node.args[1] else self.value(one)
        )
        bias = args[2] if len(args) > 2 else None
        values = []
        for part in spans(self._dense[name]):
            args[1] = self._rows(name, part)
            if bias is not None:
                args[2] = bias[part]
            values.append(self.apply(node, args, kwargs))
        return torch.cat(values, dim=1 - self._dense[name].ndim)

    def _rows(self, name: str, part: slice) -> Tensor:
        """Some rows of the pruned tensor at their places in the dense one."""
        dense, cuts = self._dense[name].detach()[part], self._cuts[name]
        pruned, rows = self._pruned.get(name), dense
        first, last = part.start, part.stop
        for cut in cuts:
            if cut.dim == 0:
                first, last = np.searchsorted(cut.keep, (part.start, part.stop))
                keep = tuple(index - part.start for index in cut.keep[first:last])
                cuts = [replace(one, keep=keep) if one is cut else one for one in cuts]
        if pruned is not None and last > first:
            rows = put_back(dense, pruned.detach()[first:last], cuts)
            let_go(dense)
        return self.constant(rows)

    def _at_new_width(self, node: fx.Node) -> Any:
        """A norm over the channels that stay, put back among zeros."""
        args, kwargs = self.arguments(node, lambda one: self._cut.slice(one, self.value(one)))
        result = self.apply(node, self._cut.arguments(node, args), kwargs)
        layouts = self.reading.layouts[node]
        if isinstance(layouts, Layout):
            return self._spread(layouts, node.meta["val"].shape, result)
        shapes = [value.shape for value in node.meta["val"]]
        return [self._spread(*each) for each in zip(layouts, shapes, result, strict=True)]

    def _masked(self, node: fx.Node, value: Any) -> Any:
        layout = self.reading.layouts[node]
        if isinstance(layout, tuple):
            return [self._zeroed(*each) for each in zip(layout, value, strict=True)]
        return self._zeroed(layout, value)

    def _zeroed(self, layout: Layout, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        for dim in layout.tracked():
            labels = layout.dims[dim]
            gone = self._cut.gone(labels)  # type: ignore[arg-type]
            if gone.any():
                shape = [-1 if d == dim else 1 for d in range(value.ndim)]
                mask = torch.from_numpy(gone).to(value.device).view(shape)
                value = value.masked_fill(mask, 0)
        return value

    def _spread(self, layout: Layout, shape: Sequence[int], value: Tensor) -> Tensor:
        """A value of kept channels at its dense shape, zeros in the places of the others."""
        for dim in layout.tracked():
            labels = layout.dims[dim]
            assert labels is not None
            wide = [*value.shape[:dim], shape[dim], *value.shape[dim + 1 :]]
            kept = self._cut.kept(labels).to(value.device)
            value = value.new_zeros(wide).index_copy(dim, kept, value)
        return value

    def _left(self, returned: Any) -> Any:
        if not isinstance(returned, fx.Node):
            return returned
        value = self.value(returned)
        return self._cut.slice(returned, value) if isinstance(value, Tensor) else value


def put_back(dense: Tensor, pruned: Tensor, cuts: Sequence[TensorCut]) -> Tensor:
    """A pruned tensor at its places in a dense one, whose other numbers stay; the inverse of cuts.

    Args:
        dense: the dense tensor.
        pruned: what the cuts, and a restorer, have left of it.
        cuts: what was done to it, in order.
    """
    if not cuts:
        return pruned
    first, *later = cuts
    whole = dense.to(pruned.dtype, copy=True)
    left = put_back(operation.select(dense, [first]), pruned, later) if later else pruned
    keep = torch.tensor(first.keep, device=dense.device).view(first.blocks, -1)
    parts = zip(whole.chunk(first.blocks), keep, left.chunk(first.blocks), strict=True)
    for block, chosen, part in parts:
        block.index_copy_(first.dim, chosen, part)
    return whole


def _new_biases(
    channels: Channels, surgery: Surgery, dense: Mapping[str, Tensor], pruned: nn.Module
) -> dict[str, Tensor]:
    """Weight → the bias that its layer was given, with zeros for outputs that have left."""
    left, cuts, found = named_tensors(pruned), cuts_of(surgery), dict[str, Tensor]()
    dims = {write.weight: write.dim for write in channels.reading.writes}
    for name in channels.reading.network.tensors.values():
        bias = f"{name.removesuffix('weight')}bias"
        if name.endswith("weight") and bias in left and bias not in dense:
            rows = dims.get(name, 0)
            same = [TensorCut(bias, 0, cut.keep) for cut in cuts[name] if cut.dim == rows]
            value = left[bias].detach()
            width = dense[name].shape[rows] if same else len(value)
            found[name] = put_back(value.new_zeros(width), value, same)
    return found


def cuts_of(surgery: Surgery) -> dict[str, list[TensorCut]]:
    """Tensor → what is done to it, in order."""
    found: dict[str, list[TensorCut]] = defaultdict(list)
    for cut in surgery.cuts:
        found[cut.tensor].append(cut)
    return found

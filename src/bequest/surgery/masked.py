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
from typing import Any

import torch
from torch import Tensor, fx, nn

from bequest.execution.devices import device_of
from bequest.execution.paging import let_go
from bequest.graph.groups import Channels
from bequest.graph.interpreter import Interpreter
from bequest.graph.ledger import Layout
from bequest.graph.trace import named_tensors, operator_of
from bequest.surgery.cut import Cut
from bequest.surgery.operation import Surgery, TensorCut

_SUMMING = frozenset(
    "cdist cosine_similarity lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell "
    "rnn_relu_cell".split()
)
"""Operators in which a channel of one operand counts although it is zero in another."""


class Masked(Interpreter):
    """The traced graph at dense widths, without what the removed channels say.

    Args:
        cut: who leaves.
        surgery: what made the pruned network.
        dense: the dense network's tensors by name.
        pruned: the pruned network, a module or a program, restored or not.
        precision: of floating-point numbers.
    """

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
        narrowed = over is not None and self._cut.gone(over).any()
        value = self._at_new_width(node) if narrowed else super().operator(node)
        return self._masked(node, value)

    def arguments(
        self, node: fx.Node, value: Callable[[fx.Node], Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Its operands and numbers, and the bias that its layer was given."""
        if operator_of(node) in _SUMMING:
            args, kwargs = super().arguments(node, lambda one: self._masked(one, value(one)))
        else:
            args, kwargs = super().arguments(node, value)
        weight: Any = node.args[1] if len(node.args) > 1 else None
        name = self.network.tensors.get(getattr(weight, "name", ""))
        if name in self._biases:
            args[2:3] = [self.constant(self._biases[name])]
        return args, kwargs

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
    whole = dense.to(pruned.dtype)
    return _filled(whole, put_back(_kept(whole, first), pruned, later), first)


def _kept(tensor: Tensor, cut: TensorCut) -> Tensor:
    blocks, keep = _blocks(tensor, cut)
    parts = zip(blocks, keep, strict=True)
    return torch.cat([block.index_select(cut.dim, chosen) for block, chosen in parts])


def _filled(whole: Tensor, left: Tensor, cut: TensorCut) -> Tensor:
    blocks, keep = _blocks(whole, cut)
    parts = zip(blocks, keep, left.chunk(cut.blocks) if cut.blocks > 1 else [left], strict=True)
    return torch.cat([block.index_copy(cut.dim, chosen, part) for block, chosen, part in parts])


def _blocks(tensor: Tensor, cut: TensorCut) -> tuple[Sequence[Tensor], Tensor]:
    """The blocks of rows of a tensor and the indices that each keeps."""
    keep = torch.tensor(cut.keep, device=tensor.device).view(cut.blocks, -1)
    return (tensor.chunk(cut.blocks) if cut.blocks > 1 else [tensor]), keep


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

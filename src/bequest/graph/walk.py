"""Runs the dense and the pruned network in lock step, operator by operator.

Both streams hold the same inputs. At every layer the caller sees what the pruned stream reads and
what the dense stream writes, may change the pruned layer, and the walk goes on with the changed
one: errors upstream are met, and can be corrected, downstream. A value that pruning doesn't touch
is computed once and shared.

Memory is that of the values still to be read, in both streams: (number of inputs) × (the largest
few maps alive at a time) × 2; each is freed after its last use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from bequest.graph.groups import Channels
from bequest.graph.ledger import Layout
from bequest.graph.rules.norms import epsilon
from bequest.graph.shrunk import Shrunk
from bequest.graph.trace import named_tensors, operator_of
from bequest.measure.progress import tracked

Chunks = list[Any]
"""A node's value: one entry per chunk of inputs; one entry alone if it depends on no input."""

Adapt = Callable[[fx.Node, list[Any]], list[Any]]
"""Changes an operator's arguments before it runs."""

LAYERS = frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear".split()
)
"""Operators with a weight that can be refitted."""


@dataclass(frozen=True)
class Layer:
    """A layer as the walk meets it, before the pruned stream has passed it.

    Attributes:
        node: the operator: a convolution (plain, grouped, depthwise, transposed) or linear layer.
        name: qualified name of the layer.
        inputs: the pruned stream's inputs, by chunk.
        dense: the dense stream's outputs without the channels that leave, by chunk.
    """

    node: fx.Node
    name: str
    inputs: Sequence[Tensor]
    dense: Sequence[Tensor]


class Walk:
    """The two streams of a dense network and its pruned copy.

    Args:
        channels: the dense network's groups; its graph is traced at the chunks' batch size.
        shrunk: the graph at its new widths.
        dense: the dense model; never changed.
        pruned: the model after the surgery.
        self_calibrate: batch norms use the dense stream's statistics over all inputs, in both
            streams, in place of the stored ones. Nothing is written back.
    """

    def __init__(
        self,
        channels: Channels,
        shrunk: Shrunk,
        dense: nn.Module,
        pruned: nn.Module,
        *,
        self_calibrate: bool,
    ) -> None:
        self.reading = channels.reading
        self.shrunk = shrunk
        self.pruned = pruned
        self.self_calibrate = self_calibrate
        self._dense_tensors = named_tensors(dense)
        self._pruned_tensors = named_tensors(pruned)
        self._dense: dict[fx.Node, Chunks] = {}
        self._pruned: dict[fx.Node, Chunks] = {}

    def difference(self, node: fx.Node) -> list[Tensor] | None:
        """Dense minus pruned value, by chunk; None where it isn't there (yet) or is zero."""
        if node not in self._pruned or self._pruned[node] is self._dense[node]:
            return None
        pairs = zip(self._dense[node], self._pruned[node], strict=True)
        return [self.shrunk.slice(node, dense) - pruned for dense, pruned in pairs]

    def norm_scale(self, norm: fx.Node, outputs: Sequence[Tensor]) -> Tensor:
        """γ/σ of a batch norm that follows a layer, σ as the walk uses it; |γ/σ| kept from zero.

        Args:
            norm: the batch norm, not yet run.
            outputs: what the dense stream feeds it, without the channels that leave.
        """
        names = self.reading.network.tensors
        held = [
            self._pruned_tensors[names[arg.name]] if isinstance(arg, fx.Node) else None
            for arg in norm.args[1:5]
        ]
        var = channel_moments(outputs)[1] if self.self_calibrate else held[3]
        assert var is not None
        gamma = torch.ones_like(var) if held[0] is None else held[0].detach()
        scale = gamma / (var + epsilon(norm)).sqrt()
        floor = 0.05 * scale.abs().mean()
        return torch.where(scale < 0, -1.0, 1.0) * scale.abs().clamp(min=float(floor))

    @torch.no_grad()
    def run(
        self,
        inputs: Sequence[Sequence[Tensor]],
        visit: Callable[[Layer], None],
        *,
        show: bool = False,
    ) -> None:
        """Walks once through the graph.

        Args:
            inputs: per chunk the network's input tensors in order.
            visit: called at every layer that reads something else than in the dense network; may
                change the pruned layer's weight and bias, also give it a bias.
            show: a progress bar on a terminal.
        """
        feeds = iter(zip(*inputs, strict=True))
        nodes = self.reading.network.nodes
        last_uses = _last_uses(nodes)
        for node in tracked(nodes, "refitting", nodes, show):
            if node.op == "placeholder":
                self._placeholder(node, feeds)
            elif node.op == "call_function":
                self._operator(node, visit)
            for done in last_uses.get(node, ()):
                self._dense.pop(done, None)
                self._pruned.pop(done, None)

    def _placeholder(self, node: fx.Node, feeds: Iterator[Any]) -> None:
        name = self.reading.network.tensors.get(node.name)
        if name is None:
            constant = self.reading.network.constants.get(node.name)
            if node.name in self.reading.network.inputs:
                self._dense[node] = self._pruned[node] = list(next(feeds))
            elif constant is not None:
                device = next(iter(self._dense_tensors.values())).device
                self._dense[node] = self._pruned[node] = [constant.to(device)]
            return
        dense, pruned = self._dense_tensors[name], self._pruned_tensors[name]
        self._dense[node] = [dense]
        same = dense.shape == pruned.shape
        self._pruned[node] = self._dense[node] if same else [pruned]

    def _operator(self, node: fx.Node, visit: Callable[[Layer], None]) -> None:
        recalibrate = self._recalibrate(node)
        self._dense[node] = _run(node, self._dense, recalibrate)
        if not any(self._differs(value) for value in node.all_input_nodes):
            self._pruned[node] = self._dense[node]
            return
        layer = self._layer_name(node)
        if layer is not None and self._differs(node.args[0]):
            dense = [self.shrunk.slice(node, value) for value in self._dense[node]]
            visit(Layer(node, layer, self._pruned[node.args[0]], dense))  # type: ignore[index]
        self._pruned[node] = _run(node, self._pruned, self._at_new_width(layer, recalibrate))

    def _differs(self, node: Any) -> bool:
        return node in self._dense and self._dense[node] is not self._pruned[node]

    def _layer_name(self, node: fx.Node) -> str | None:
        """The layer whose own weight this operator applies."""
        if operator_of(node) not in LAYERS or not isinstance(node.args[1], fx.Node):
            return None
        weight = self.reading.network.tensors.get(node.args[1].name, "")
        return weight.removesuffix(".weight") if weight.endswith(".weight") else None

    def _recalibrate(self, node: fx.Node) -> Adapt:
        """Puts the dense stream's mean and variance into the arguments of a batch norm."""
        if self.reading.roles.get(node) != "norm":
            return lambda _, args: args
        data, names = node.args[0], self.reading.network.tensors
        assert isinstance(data, fx.Node)
        held: Any = node.args[3:5]
        mean, var = (self._dense_tensors[names[one.name]] for one in held)
        if self.self_calibrate:
            mean, var = channel_moments(self._dense[data])
        layout = self.reading.layouts[data]
        assert isinstance(layout, Layout)
        labels = layout.dims[1]

        def replace(_: fx.Node, args: list[Any]) -> list[Any]:
            keep = slice(None)
            if labels is not None and len(mean) != args[0].shape[1]:
                keep = self.shrunk.kept(labels).to(mean.device)  # type: ignore[assignment]
            args[3:5] = [mean[keep], var[keep]]
            return args

        return replace

    def _at_new_width(self, layer: str | None, recalibrate: Adapt) -> Adapt:
        def adapt(node: fx.Node, args: list[Any]) -> list[Any]:
            if layer is not None:  # its weight and bias may have been replaced by the visit
                module = self.pruned.get_submodule(layer)
                args[1:3] = [module.weight, module.bias]
            return self.shrunk.arguments(node, recalibrate(node, args))

        return adapt


def channel_moments(chunks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance (biased) of each channel, dimension 1, over all chunks; both (n,)."""
    dims = [d for d in range(chunks[0].ndim) if d != 1]
    count = sum(chunk.numel() // chunk.shape[1] for chunk in chunks)
    total = torch.stack([chunk.sum(dims) for chunk in chunks]).double().sum(0)
    mean = (total / count).to(chunks[0].dtype)
    centre = mean.view([-1 if d == 1 else 1 for d in range(chunks[0].ndim)])
    squares = torch.stack([(chunk - centre).square().sum(dims) for chunk in chunks])
    return mean, (squares.double().sum(0) / count).to(mean.dtype)


def _run(node: fx.Node, streams: Mapping[fx.Node, Chunks], adapt: Adapt) -> Chunks:
    """The operator on every chunk; once, where no operand depends on the inputs."""
    chunks = max(
        (len(streams[value]) for value in node.all_input_nodes if value in streams), default=1
    )
    results = []
    for number in range(chunks):

        def pick(value: fx.Node, number: int = number) -> Any:
            held = streams[value]
            return held[number] if len(held) > 1 else held[0]

        args = list(fx.map_arg(node.args, pick))
        kwargs = dict(fx.map_arg(node.kwargs, pick))
        if kwargs.get("device") is not None:  # of a tensor that is made; the trace was without data
            kwargs["device"] = next(held[0].device for held in streams.values())
        results.append(node.target(*adapt(node, args), **kwargs))  # type: ignore[operator]
    return results


def _last_uses(nodes: Sequence[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Node → the values that nobody reads after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for value in (node, *node.all_input_nodes):
            last[value] = node
    uses: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for value, node in last.items():
        uses[node].append(value)
    return uses

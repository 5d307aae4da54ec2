"""Runs the dense and the pruned network in lock step, operator by operator.

Both streams hold the same inputs. At every layer the caller sees what the pruned stream reads and
what the dense stream writes, may change the pruned layer, and the walk goes on with the changed
one: errors upstream are met, and can be corrected, downstream. A value that pruning doesn't touch
is computed once and shared.

Values are freed after their last use. Those alive at a time, in both streams, take at most
:func:`bequest.graph.spill.limit_on` bytes of memory; the rest lies in a temporary folder
(``TMPDIR``) and is read back chunk by chunk. To that come the few chunks at work and one layer's
Gram.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from bequest.execution.devices import device_of
from bequest.graph import spill
from bequest.graph.groups import Channels
from bequest.graph.ledger import Layout
from bequest.graph.rules.norms import epsilon
from bequest.graph.shrunk import Shrunk
from bequest.graph.spill import Mapped, Store
from bequest.graph.trace import module_of, named_tensors, operator_of
from bequest.measure.precision import HALF, working_precision
from bequest.measure.progress import tracked

Chunks = Sequence[Any]
"""A node's value: one entry per chunk of inputs; one entry alone if it depends on no input."""

Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel."""

Adapt = Callable[[fx.Node, list[Any]], list[Any]]
"""Changes an operator's arguments before it runs."""

LAYERS = frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear".split()
)
"""Operators with a weight that can be refitted."""

ROUNDING = 1e-10
"""A variance of this share of the squared mean is none."""


@dataclass(frozen=True)
class Layer:
    """A layer as the walk meets it, before the pruned stream has passed it.

    Attributes:
        node: the operator: a convolution (plain, grouped, depthwise, transposed) or linear layer.
        name: qualified name of the layer.
        inputs: the pruned stream's inputs, by chunk; read or computed anew whenever asked for.
        dense: the dense stream's outputs without the channels that leave, likewise.
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
        pruned: the model after the surgery, in its working precision.
        self_calibrate: batch norms use the dense stream's statistics over all inputs, in both
            streams, in place of the stored ones. Nothing is written back.

    Attributes:
        constant: layer → how many of its outputs, of those a batch norm was calibrated on, were
            the same for all inputs and places.
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
        self.constant: dict[str, int] = {}
        self._precision = working_precision(dense)
        self._device = device_of(dense)
        self._dense_tensors = {
            name: tensor.to(self._precision) if tensor.is_floating_point() else tensor
            for name, tensor in named_tensors(dense).items()
        }
        self._pruned_tensors = named_tensors(pruned)
        self._dense: dict[fx.Node, Chunks] = {}
        self._pruned: dict[fx.Node, Chunks] = {}
        self._moments: dict[fx.Node, Moments] = {}
        self._everywhere = False

    def difference(self, node: fx.Node) -> Sequence[Tensor] | None:
        """Dense minus pruned value, by chunk; None where it isn't there (yet) or is zero."""
        if node not in self._pruned or self._pruned[node] is self._dense[node]:
            return None
        dense, pruned = self._dense[node], self._pruned[node]
        return Mapped(lambda i: self.shrunk.slice(node, dense[i]) - pruned[i], len(dense))

    def norm_scale(self, norm: fx.Node, fed: fx.Node) -> Tensor:
        """γ/σ of a batch norm that follows a layer, σ as the walk uses it; |γ/σ| kept from zero.

        Args:
            norm: the batch norm, not yet run.
            fed: the operator whose output goes to it unchanged.

        Returns:
            (n,), n the channels that stay.
        """
        names = self.reading.network.tensors
        held = [
            self._pruned_tensors[names[arg.name]] if isinstance(arg, fx.Node) else None
            for arg in norm.args[1:5]
        ]
        var = self._kept(fed, self._dense_moments(fed)[1]) if self.self_calibrate else held[3]
        assert var is not None
        gamma = torch.ones_like(var) if held[0] is None else held[0].detach()
        scale = gamma / (var + epsilon(norm)).sqrt()
        floor = 0.05 * scale.abs().mean()
        return torch.where(scale < 0, -1.0, 1.0).to(scale) * scale.abs().clamp(min=floor)

    @torch.no_grad()
    def run(
        self,
        inputs: Sequence[Sequence[Tensor]],
        visit: Callable[[Layer], None],
        *,
        everywhere: bool = False,
        title: str = "refitting",
        show: bool = False,
    ) -> None:
        """Walks once through the graph.

        Args:
            inputs: per chunk the network's input tensors in order.
            visit: called at every layer that reads something else than in the dense network; may
                change the pruned layer's weight and bias, also give it a bias.
            everywhere: call it at every layer; with nothing pruned both streams are the dense one.
            title: what a progress bar says.
            show: a progress bar on a terminal.

        Raises:
            BequestError: the temporary folder hasn't the room for what doesn't fit into memory.
        """
        self._everywhere = everywhere
        feeds = iter(zip(*inputs, strict=True))
        nodes = self.reading.network.nodes
        last_uses = _last_uses(nodes)
        with Store(spill.limit_on(self._device)) as store:
            for node in tracked(nodes, title, nodes, show):
                if node.op == "placeholder":
                    self._placeholder(node, feeds)
                elif node.op == "call_function":
                    self._operator(node, visit, store)
                for done in last_uses.get(node, ()):
                    self._moments.pop(done, None)
                    for stream in (self._dense, self._pruned):
                        store.drop(stream.pop(done, ()))

    def _placeholder(self, node: fx.Node, feeds: Iterator[Any]) -> None:
        name = self.reading.network.tensors.get(node.name)
        if name is None:
            constant = self.reading.network.constants.get(node.name)
            if node.name in self.reading.network.inputs:
                self._dense[node] = self._pruned[node] = list(next(feeds))
            elif constant is not None:
                precision = self._precision if constant.dtype in HALF else constant.dtype
                placed = constant.to(self._device, precision)
                self._dense[node] = self._pruned[node] = [placed]
            return
        dense, pruned = self._dense_tensors[name], self._pruned_tensors[name]
        self._dense[node] = [dense]
        same = dense.shape == pruned.shape
        self._pruned[node] = self._dense[node] if same else [pruned]

    def _operator(self, node: fx.Node, visit: Callable[[Layer], None], store: Store) -> None:
        recalibrate = self._recalibrate(node)
        self._dense[node] = dense = store.keep(self._run(node, self._dense, recalibrate))
        layer = self._layer_name(node)
        if layer is not None and (self._everywhere or self._differs(node.args[0])):
            left = Mapped(lambda i: self.shrunk.slice(node, dense[i]), len(dense))
            visit(Layer(node, layer, self._pruned[node.args[0]], left))  # type: ignore[index]
        # A constant expanded to all channels has no operand that differs, and yet is narrower.
        if not any(map(self._differs, node.all_input_nodes)) and not self.shrunk.narrows(node):
            self._pruned[node] = dense
            return
        adapt = self._at_new_width(layer, recalibrate)
        self._pruned[node] = store.keep(self._run(node, self._pruned, adapt))

    def _run(self, node: fx.Node, streams: Mapping[fx.Node, Chunks], adapt: Adapt) -> Iterator[Any]:
        """The operator on every chunk; once, where no operand depends on the inputs."""
        operands = [streams[value] for value in node.all_input_nodes if value in streams]
        for number in range(max(map(len, operands), default=1)):

            def pick(given: Any, number: int = number) -> Any:
                if isinstance(given, fx.Node):
                    held = streams[given]
                    return held[number] if len(held) > 1 else held[0]
                return self._precision if given in HALF else given

            args = list(fx.node.map_aggregate(node.args, pick))
            kwargs: Any = dict(fx.node.map_aggregate(node.kwargs, pick))
            if kwargs.get("device") is not None:  # of a tensor that is made; traced without data
                kwargs["device"] = next(held[0].device for held in streams.values())
            # Values lie in memory as the weights' format has it, which tracing can't foresee.
            function: Any = torch.reshape if operator_of(node) == "view" else node.target
            yield function(*adapt(node, args), **kwargs)

    def _differs(self, node: Any) -> bool:
        return node in self._dense and self._dense[node] is not self._pruned[node]

    def _layer_name(self, node: fx.Node) -> str | None:
        """The layer whose own weight this operator applies, shared at most with other layers.

        A weight that is a table of tokens too can't follow what a layer would need.
        """
        if operator_of(node) not in LAYERS or not isinstance(node.args[1], fx.Node):
            return None
        if any(operator_of(user) not in LAYERS for user in node.args[1].users):
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
            mean, var = self._dense_moments(data)
            flat = int((var <= ROUNDING * mean.square()).sum())
            if flat:
                self.constant[self._layer_name(data) or module_of(node)] = flat

        def replace(_: fx.Node, args: list[Any]) -> list[Any]:
            same = len(mean) == args[0].shape[1]
            args[3:5] = [one if same else self._kept(data, one) for one in (mean, var)]
            return args

        return replace

    def _dense_moments(self, node: fx.Node) -> Moments:
        if node not in self._moments:
            self._moments[node] = channel_moments(self._dense[node])
        return self._moments[node]

    def _kept(self, node: fx.Node, values: Tensor) -> Tensor:
        """Of numbers per channel of ``node``, those of the channels that stay."""
        layout = self.reading.layouts[node]
        assert isinstance(layout, Layout)
        labels = layout.dims[1]
        return values if labels is None else values[self.shrunk.kept(labels).to(values.device)]

    def _at_new_width(self, layer: str | None, recalibrate: Adapt) -> Adapt:
        def adapt(node: fx.Node, args: list[Any]) -> list[Any]:
            if layer is not None:  # its weight and bias may have been replaced by the visit
                module = self.pruned.get_submodule(layer)
                args[1:3] = [module.weight, module.bias]
            return self.shrunk.arguments(node, recalibrate(node, args))

        return adapt


def channel_moments(chunks: Sequence[Tensor]) -> Moments:
    """Mean and variance (biased) of each channel, dimension 1, over all chunks; both (n,).

    Each chunk is looked at once: its own moments are joined with those of the others, in float64
    (Chan, Golub & LeVeque, 1983).
    """
    counts, means, squares = [], [], []
    for chunk in chunks:
        dims = [d for d in range(chunk.ndim) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(chunk.ndim)]
        mean = chunk.mean(dims)
        means.append(mean.double())
        squares.append((chunk - mean.view(shape)).square_().sum(dims).double())
        counts.append(chunk.numel() // chunk.shape[1])
        dtype = chunk.dtype
    weights = torch.tensor(counts, dtype=torch.float64, device=means[0].device)[:, None]
    each, total = torch.stack(means), weights.sum()
    centre = (weights * each).sum(0) / total
    spread = torch.stack(squares).sum(0) + (weights * (each - centre).square()).sum(0)
    return centre.to(dtype), (spread / total).to(dtype)


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

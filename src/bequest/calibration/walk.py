"""Runs the dense and the pruned network in lock step, operator by operator.

Both streams hold the same inputs. At every layer the caller sees what the pruned stream reads and
what the dense stream writes, may change the pruned layer, and the walk goes on with the changed
one: errors upstream are met, and can be corrected, downstream. A value that pruning doesn't touch
is computed once and shared.

Values are freed after their last use. Those alive at a time, in both streams, take at most
:func:`bequest.calibration.spill.limit_on` bytes of memory; the rest lies in a temporary folder
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

from bequest.calibration import spill
from bequest.calibration.spill import Mapped, Store
from bequest.errors import UsageError
from bequest.execution.devices import device_of
from bequest.execution.modules import first_lines
from bequest.execution.precision import HALF, working_precision
from bequest.execution.progress import tracked
from bequest.graph.geometry import LAYERS, Geometry, arguments
from bequest.graph.groups import Channels
from bequest.graph.ledger import Layout
from bequest.graph.rules.norms import epsilon
from bequest.graph.schedule import Step, last_uses, schedule
from bequest.graph.trace import function_of, module_of, named_tensors, operator_of, place_of
from bequest.surgery.cut import Cut
from bequest.surgery.operation import add_bias, can_hold_bias

Chunks = Sequence[Any]
"""A node's value: one entry per chunk of inputs; one entry alone if it depends on no input."""

Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel."""

Adapt = Callable[[fx.Node, list[Any]], list[Any]]
"""Changes an operator's arguments before it runs."""

ROUNDING = 1e-10
"""A variance of this share of the squared mean is none."""


@dataclass(frozen=True)
class Call:
    """One operator that applies a layer's weight, before the pruned stream has passed it.

    Attributes:
        node: the operator: a convolution (plain, grouped, depthwise, transposed) or linear layer.
        geometry: of that operator after pruning.
        bias: qualified name of the bias that it adds; None = none, as far as it was traced.
        inputs: the pruned stream's inputs, by chunk; read or computed anew whenever asked for.
        dense: the dense stream's outputs without the channels that leave, likewise.
    """

    node: fx.Node
    geometry: Geometry
    bias: str | None
    inputs: Sequence[Tensor]
    dense: Sequence[Tensor]


@dataclass(frozen=True)
class Layer:
    """A layer as the walk meets it: a weight and the operators that apply it.

    Attributes:
        name: qualified name of the weight's owner: that of the weight without ``.weight``.
        weight: qualified name of the weight.
        calls: of its operators those that come together; more than one where a weight is shared.
        uses: how many operators apply the weight in all.
    """

    name: str
    weight: str
    calls: tuple[Call, ...]
    uses: int

    @property
    def whole(self) -> bool:
        """All calls are here: what is made of the weight now is what every one of them applies."""
        return len(self.calls) == self.uses


class Walk:
    """The two streams of a dense network and its pruned copy.

    Args:
        cut: who leaves; the dense network's graph is traced at the chunks' batch size.
        dense: the dense model; never changed.
        pruned: the model after the surgery, in its working precision.

    Attributes:
        constant: layer → how many of its outputs, of those a batch norm was calibrated on, were
            the same for all inputs and places.
    """

    def __init__(
        self,
        cut: Cut,
        dense: nn.Module,
        pruned: nn.Module,
    ) -> None:
        self.reading = cut.channels.reading
        self.cut = cut
        self.pruned = pruned
        self.self_calibrate = False
        self.constant: dict[str, int] = {}
        self._precision = working_precision(dense)
        self._device = device_of(dense)
        self._dense_tensors = {
            name: tensor.to(self._precision) if tensor.is_floating_point() else tensor
            for name, tensor in named_tensors(dense).items()
        }
        self._pruned_tensors = named_tensors(pruned)
        self._weights = _layer_weights(cut.channels)
        self._added: dict[str, str] = {}  # weight → the bias that its layer was given
        self._dense: dict[fx.Node, Chunks] = {}
        self._pruned: dict[fx.Node, Chunks] = {}
        self._moments: dict[fx.Node, Moments] = {}
        self._everywhere = False

    def difference(self, node: fx.Node) -> Sequence[Tensor] | None:
        """Dense minus pruned value, by chunk; None where it isn't there (yet) or is zero."""
        if node not in self._pruned or self._pruned[node] is self._dense[node]:
            return None
        dense, pruned = self.values(node)
        return Mapped(lambda i: dense[i] - pruned[i], len(dense))

    def values(self, node: fx.Node) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Dense value without the channels that leave, and pruned value, by chunk."""
        dense, pruned = self._dense[node], self._pruned[node]
        kept = Mapped(lambda i: self.cut.slice(node, dense[i]), len(dense))
        return kept, pruned

    def tensor(self, name: str | None) -> Tensor | None:
        """A parameter or buffer of the pruned model as it is now; None for None."""
        return None if name is None else self._pruned_tensors[name]

    def bias(self, layer: Layer, call: Call) -> str | None:
        """Qualified name of the bias that the call adds now; it may have been given one."""
        return self._added.get(layer.weight, call.bias)

    def owns_bias(self, layer: Layer, call: Call) -> bool:
        """Whether a call adds a bias that nothing but the layer's calls here reads."""
        names, here = self.reading.network.tensors, {one.node for one in layer.calls}
        return call.bias is not None and all(
            node in here
            or all(names.get(value.name) != call.bias for value in node.all_input_nodes)
            for node in self.reading.network.nodes
        )

    def can_give_bias(self, layer: Layer) -> bool:
        """Whether a layer without bias has a place for one that all of its calls would read."""
        return (
            layer.whole
            and layer.weight == f"{layer.name}.weight"
            and can_hold_bias(self.pruned, layer.name)
            and all(call.bias is None for call in layer.calls)
            and all(module_of(call.node) == layer.name for call in layer.calls)
        )

    def give_bias(self, layer: Layer) -> str:
        """Gives the layer a bias of zeros, which its calls add from now on; returns its name."""
        add_bias(self.pruned, layer.name)
        name = f"{layer.name}.bias"
        bias = self.pruned.get_submodule(layer.name).bias
        assert isinstance(bias, Tensor)
        self._pruned_tensors[name] = bias
        self._added[layer.weight] = name
        return name

    def written(self, call: Call, number: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What a call makes of the pruned stream's chunk with another weight and bias."""

        def swap(node: fx.Node, args: list[Any]) -> list[Any]:
            args[1:3] = [weight, bias]
            return self.cut.arguments(node, args)

        result: Tensor = self._run_chunk(call.node, self._pruned, number, swap)
        return result

    def norm_scale(self, norm: fx.Node, fed: fx.Node) -> Tensor:
        """γ/σ of a batch norm that follows a layer, σ as the walk uses it.

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
        return gamma / (var + epsilon(norm)).sqrt()

    @torch.no_grad()
    def run(
        self,
        inputs: Sequence[Sequence[Tensor]],
        visit: Callable[[Layer], None],
        *,
        self_calibrate: bool,
        everywhere: bool = False,
        title: str = "refitting",
        show: bool = False,
    ) -> None:
        """Walks once through the graph.

        Args:
            inputs: per chunk the network's input tensors in order.
            visit: called at every layer that reads something else than in the dense network, once
                for all calls of a weight where none of them depends on another; may change the
                pruned layer's weight and bias, also give it a bias.
            self_calibrate: batch norms use the dense stream's statistics over all inputs, in both
                streams, in place of the stored ones. Nothing is written back.
            everywhere: call it at every layer; with nothing pruned both streams are the dense one.
            title: what a progress bar says.
            show: a progress bar on a terminal.

        Raises:
            BequestError: the temporary folder hasn't the room for what doesn't fit into memory.
        """
        self.self_calibrate, self._everywhere = self_calibrate, everywhere
        feeds = iter(zip(*inputs, strict=True))
        shared = [nodes for nodes in self._calls().values() if len(nodes) > 1]
        steps = schedule(self.reading.network.nodes, shared)
        last_readers = last_uses([node for step in steps for node in step])
        with Store(spill.limit_on(self._device)) as store:
            for step in tracked(steps, title, steps, show):
                if step[0].op == "placeholder":
                    self._placeholder(step[0], feeds)
                elif step[0].op == "call_function":
                    self._operators(step, visit, store)
                for done in (done for node in step for done in last_readers.get(node, ())):
                    self._moments.pop(done, None)
                    for stream in (self._dense, self._pruned):
                        store.drop(stream.pop(done, ()))

    def _calls(self) -> dict[str, Step]:
        """Weight → the operators that apply it as the weight of a layer."""
        found: dict[str, list[fx.Node]] = defaultdict(list)
        for node, weight in self._weights.items():
            found[weight].append(node)
        return {weight: tuple(nodes) for weight, nodes in found.items()}

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

    def _operators(self, step: Step, visit: Callable[[Layer], None], store: Store) -> None:
        """Operators that run together: one, or the calls of one weight."""
        adapts = {node: self._recalibrate(node) for node in step}
        for node in step:
            self._dense[node] = store.keep(self._run(node, self._dense, adapts[node]))
        weight = self._weights.get(step[0])
        met = weight is not None and any(self._differs(node.args[0]) for node in step)
        if weight is not None and (met or self._everywhere):
            calls = tuple(map(self._call, step))
            uses = sum(other == weight for other in self._weights.values())
            visit(Layer(weight.removesuffix(".weight"), weight, calls, uses))
        for node in step:
            # A constant expanded to all channels has no operand that differs, and yet is narrower.
            differs = met or any(map(self._differs, node.all_input_nodes))
            if differs or self.cut.narrows(node):
                adapt = self._at_new_width(adapts[node])
                self._pruned[node] = store.keep(self._run(node, self._pruned, adapt))
            else:
                self._pruned[node] = self._dense[node]

    def _call(self, node: fx.Node) -> Call:
        dense, source = self._dense[node], node.args[0]
        assert isinstance(source, fx.Node)
        return Call(
            node,
            Geometry.of(node, self.cut.literals(node).get(6)),
            self._bias_name(node),
            self._pruned[source],
            Mapped(lambda i: self.cut.slice(node, dense[i]), len(dense)),
        )

    def _bias_name(self, node: fx.Node) -> str | None:
        bias = arguments(node)["bias"]
        return None if bias is None else self.reading.network.tensors[bias.name]

    def _run(self, node: fx.Node, streams: Mapping[fx.Node, Chunks], adapt: Adapt) -> Iterator[Any]:
        """The operator on every chunk; once, where no operand depends on the inputs."""
        operands = [streams[value] for value in node.all_input_nodes if value in streams]
        for number in range(max(map(len, operands), default=1)):
            yield self._run_chunk(node, streams, number, adapt)

    def _run_chunk(
        self, node: fx.Node, streams: Mapping[fx.Node, Chunks], number: int, adapt: Adapt
    ) -> Any:
        def pick(given: Any) -> Any:
            if isinstance(given, fx.Node):
                held = streams[given]
                return held[number] if len(held) > 1 else held[0]
            return self._precision if given in HALF else given

        args = list(fx.node.map_aggregate(node.args, pick))
        kwargs: Any = dict(fx.node.map_aggregate(node.kwargs, pick))
        if kwargs.get("device") is not None:  # of a tensor that is made; traced without data
            kwargs["device"] = next(held[0].device for held in streams.values())
        try:
            return function_of(node)(*adapt(node, args), **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever an operator says to numbers, such as places
            raise UsageError(
                f"{place_of(node)} does not run on the inputs that layers are refitted to: "
                f"{first_lines(error).rstrip('.')}. Give others with data=, or take a weight-space "
                "restorer such as 'lbyl'"
            ) from error

    def _differs(self, node: Any) -> bool:
        return node in self._dense and self._dense[node] is not self._pruned[node]

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
                before = self._weights.get(data, module_of(node))
                self.constant[before.removesuffix(".weight")] = flat

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
        return values if labels is None else values[self.cut.kept(labels).to(values.device)]

    def _at_new_width(self, recalibrate: Adapt) -> Adapt:
        def adapt(node: fx.Node, args: list[Any]) -> list[Any]:
            weight = self._weights.get(node)
            if weight is not None:  # it and the bias may have been changed by the visit
                bias = self._added.get(weight, self._bias_name(node))
                args[1:3] = [self._pruned_tensors[weight], self.tensor(bias)]
            return self.cut.arguments(node, recalibrate(node, args))

        return adapt


def _layer_weights(channels: Channels) -> dict[fx.Node, str]:
    """Layer's operator → its weight, of those weights that may change.

    A weight that anything but layers of one kind reads can't follow what a layer would need: a
    table of tokens too, say, or a decoder's that is the encoder's transposed.
    """
    names = channels.reading.network.tensors
    found: dict[fx.Node, str] = {}
    kinds: dict[str, set[object]] = defaultdict(set)
    for node in channels.reading.network.nodes:
        for value in node.all_input_nodes:
            name = names.get(value.name)
            if name is None:
                continue
            if _applies(node, value, names):
                geometry, found[node] = Geometry.of(node), name
                kinds[name].add((geometry.linear, geometry.transposed, geometry.groups))
            else:
                kinds[name].add(node)
    return {node: name for node, name in found.items() if len(kinds[name]) == 1}


def _applies(node: fx.Node, weight: fx.Node, names: Mapping[str, str]) -> bool:
    """Whether an operator is a layer, this its weight, and its bias no computed one."""
    if node.op != "call_function" or operator_of(node) not in LAYERS or node.args[1] is not weight:
        return False
    bias = arguments(node)["bias"]
    return weight.meta["val"].ndim > 1 and (bias is None or bias.name in names)


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

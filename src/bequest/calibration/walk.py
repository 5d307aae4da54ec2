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

from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from bequest.calibration import spill
from bequest.calibration.layers import Call, Layer, as_applied, bias_of, layer_weights
from bequest.calibration.recalibration import BatchNorms
from bequest.calibration.regions import Region
from bequest.calibration.spill import Mapped, Store
from bequest.calibration.stream import Adapt, Stream
from bequest.calibration.tensors import Tensors
from bequest.execution.devices import device_of
from bequest.execution.paging import let_go
from bequest.execution.precision import working_precision
from bequest.execution.progress import tracked
from bequest.graph.geometry import geometry_of
from bequest.graph.recurrence import is_recurrent, tensors_of
from bequest.graph.rules.norms import epsilon
from bequest.graph.schedule import Step, last_uses, schedule
from bequest.graph.trace import module_of
from bequest.surgery.cut import Cut
from bequest.surgery.operation import add_bias, can_hold_bias


class Walk:
    """The two streams of a dense network and its pruned copy.

    Args:
        cut: who leaves; the dense network's graph is traced at the chunks' batch size.
        dense: the dense model; never changed.
        pruned: the model after the surgery.

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
        network, precision = self.reading.network, working_precision(dense)
        self._device, self._precision = device_of(dense), precision
        self._tensors = Tensors(pruned, precision)
        self._dense_tensors = Tensors(dense, precision)
        self._dense = Stream(network, self._dense_tensors, self._device, precision)
        self._pruned = Stream(network, self._tensors, self._device, precision)
        self._weights = layer_weights(network)
        self._added: dict[str, str] = {}  # weight → the bias that its layer was given
        self._norms = BatchNorms(cut, self._dense, self._weights)
        self.constant = self._norms.constant
        self._everywhere = False
        self._regions: Mapping[fx.Node, Region] = {}
        self._store: Store

    def layers(self) -> Iterable[fx.Node]:
        """The operators that apply weights which may change."""
        return self._weights.keys()

    def changeable(self, region: Region) -> list[str]:
        """The parameters of a region that nothing outside of it reads; buffers stay."""
        names, inside = self.reading.network.tensors, frozenset(region.nodes)
        found = [self._added[w] for w in map(self._weights.get, region.nodes) if w in self._added]
        for node in region.nodes:
            for value in node.all_input_nodes:
                name = names.get(value.name)
                if name is not None and inside.issuperset(value.users):
                    found.append(name)
        return list(filter(self.is_parameter, dict.fromkeys(found)))

    def is_parameter(self, name: str) -> bool:
        """Whether a tensor is one of real numbers that may be learnt, and no buffer."""
        tensor = self._tensors.held[name]
        return isinstance(tensor, nn.Parameter) and tensor.is_floating_point()

    def outside(self, region: Region, number: int) -> dict[fx.Node, Any]:
        """What a region reads from elsewhere in the pruned stream, of one chunk."""
        return {node: self._pruned.at(node, number) for node in region.outside}

    def replay(
        self,
        region: Region,
        values: Mapping[fx.Node, Any],
        tensors: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Mapping[fx.Node, Any]:
        """What the operators of a region make of values from elsewhere.

        Args:
            region: one that the walk was given.
            values: for each of its ``outside``.
            tensors: by name, in place of the pruned network's.
        """
        names, pruned = self.reading.network.tensors, self._pruned
        held = ChainMap(dict(tensors), pruned.tensors)  # type: ignore[arg-type]
        one = Stream(pruned.network, held, self._device, self._precision)
        one.values = {node: [value] for node, value in values.items()}
        for node in region.nodes:
            for read in node.all_input_nodes:
                if read.name in names:
                    one.values[read] = one.tensor(names[read.name])
            adapt = self._at_new_width(node, self._norms.adapts[node], held)
            one.values[node] = [one.chunk(node, 0, adapt)]
        return {node: one.values[node][0] for node in region.nodes}

    def outputs(
        self,
        chunk: Sequence[Tensor],
        tensors: Mapping[str, Tensor] = MappingProxyType({}),
        *,
        dense: bool,
    ) -> list[Tensor]:
        """The real numbers that one of the networks returns, with stored statistics.

        Args:
            chunk: of inputs, in order.
            tensors: by name, in place of the network's.
            dense: which network.
        """
        own = self._dense if dense else self._pruned
        held = ChainMap(dict(tensors), own.tensors)  # type: ignore[arg-type]

        def adapt(node: fx.Node) -> Adapt:
            return list if dense else self._at_new_width(node, list, held)

        one = Stream(own.network, held, self._device, self._precision, adapt)
        one.interpret([part] for part in chunk)
        found = (one.values[node][0] for node in own.network.nodes[-1].all_input_nodes)
        return [one for one in found if isinstance(one, Tensor) and one.is_floating_point()]

    def rerun(self, region: Region) -> None:
        """Gives what the last layer of a region reads its value anew, after weights changed."""
        source: Any = region.nodes[-1].args[0]
        count = len(self._pruned.values[source])
        self._pruned.values[source] = self._store.keep(
            self.replay(region, self.outside(region, number))[source] for number in range(count)
        )

    def differs(self, node: Any) -> bool:
        """Whether a value is another one in the pruned stream."""
        dense = self._dense.values
        return node in dense and dense[node] is not self._pruned.values[node]

    def count(self, node: fx.Node) -> int:
        """Of a value's chunks."""
        return len(self._dense.values[node])

    def operand(self, node: fx.Node, number: int, *, dense: bool) -> Any:
        """A chunk of a value that is there, in one of the streams."""
        return (self._dense if dense else self._pruned).at(node, number)

    def keep(self, values: Iterable[Any]) -> Sequence[Any]:
        """Values by chunk, in memory while there is room."""
        return self._store.keep(values)

    def difference(self, node: fx.Node) -> Sequence[Tensor] | None:
        """Dense minus pruned value, by chunk; None where it isn't there (yet) or is zero."""
        if node not in self._pruned.values or not self.differs(node):
            return None
        dense, pruned = self.values(node)
        return Mapped(lambda i: dense[i] - pruned[i], len(dense))

    def values(self, node: fx.Node) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Dense value without the channels that leave, and pruned value, by chunk."""
        return self._kept(node), self._pruned.values[node]

    def tensor(self, name: str | None) -> Tensor | None:
        """A parameter or buffer of the pruned model as it is now; None for None.

        It is in the precision of the walk, and changed by :meth:`write` alone.
        """
        return None if name is None else self._tensors[name]

    def write(self, name: str, values: Tensor, cause: str) -> None:
        """Gives a tensor of the pruned model other values; see :meth:`Tensors.write`."""
        self._tensors.write(name, values, cause)

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
        self._tensors.held[name] = bias
        self._added[layer.weight] = name
        return name

    def written(self, call: Call, number: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What a call makes of the pruned stream's chunk with another weight and bias."""

        def swap(args: list[Any]) -> list[Any]:
            args[1:3] = [as_applied(call.node, weight), bias]
            return self.cut.arguments(call.node, args)

        result: Tensor = self._pruned.chunk(call.node, number, swap)
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
        gamma, stored = (
            self._tensors[names[arg.name]] if isinstance(arg, fx.Node) else None
            for arg in (norm.args[1], norm.args[4])
        )
        assert stored is not None
        var = self._norms.variance(fed, stored)
        scale = torch.ones_like(var) if gamma is None else gamma.detach()
        return scale / (var + epsilon(norm)).sqrt()

    @torch.no_grad()
    def run(
        self,
        inputs: Sequence[Sequence[Tensor]],
        visit: Callable[[Layer], None],
        *,
        recur: Callable[[fx.Node], None] = lambda _: None,
        self_calibrate: bool,
        everywhere: bool = False,
        regions: Mapping[fx.Node, Region] = MappingProxyType({}),
        title: str = "refitting",
        show: bool = False,
    ) -> None:
        """Walks once through the graph.

        Args:
            inputs: per chunk the network's input tensors in order.
            visit: called at every layer that reads something else than in the dense network, once
                for all calls of a weight where none of them depends on another; may change the
                pruned layer's weight and bias, also give it a bias.
            recur: likewise called at every recurrent operator that reads something else, or has
                lost units; may change its weights and biases where nothing else reads them.
            self_calibrate: batch norms use the dense stream's statistics over all inputs, in both
                streams, in place of the stored ones. Nothing is written back.
            everywhere: call it at every layer; with nothing pruned both streams are the dense one.
            regions: layer's operator → what the visit may :meth:`replay` there.
            title: what a progress bar says.
            show: a progress bar on a terminal.

        Raises:
            BequestError: the temporary folder hasn't the room for what doesn't fit into memory.
        """
        self._norms.self_calibrate, self._everywhere = self_calibrate, everywhere
        self._regions = regions
        feeds = iter(zip(*inputs, strict=True))
        shared = [nodes for nodes in self._calls().values() if len(nodes) > 1]
        steps = schedule(self.reading.network.nodes, shared)
        held = {node: region.outside for node, region in regions.items()}
        last_readers = last_uses([node for step in steps for node in step], held)
        with Store(spill.limit_on(self._device)) as self._store:
            for step in tracked(steps, title, steps, show):
                if step[0].op == "placeholder":
                    self._placeholder(step[0], feeds)
                elif step[0].op == "call_function":
                    self._operators(step, visit, recur)
                for done in (done for node in step for done in last_readers.get(node, ())):
                    self._forget(done)

    def _forget(self, node: fx.Node) -> None:
        self._norms.forget(node)
        name = self.reading.network.tensors.get(node.name)
        if name is not None:
            let_go(self._dense_tensors.held[name])
        for stream in (self._dense, self._pruned):
            self._store.drop(stream.values.pop(node, ()))

    def _calls(self) -> dict[str, Step]:
        """Weight → the operators that apply it as the weight of a layer."""
        found: dict[str, list[fx.Node]] = defaultdict(list)
        for node, weight in self._weights.items():
            found[weight].append(node)
        return {weight: tuple(nodes) for weight, nodes in found.items()}

    def _placeholder(self, node: fx.Node, feeds: Iterator[Any]) -> None:
        dense = self._dense.placeholder(node, feeds)
        if dense is None:
            return
        name = self.reading.network.tensors.get(node.name)
        cut = name is not None and self._tensors.held[name].shape != node.meta["val"].shape
        self._dense.values[node] = dense
        self._pruned.values[node] = self._pruned.tensor(name) if name and cut else dense

    def _operators(
        self, step: Step, visit: Callable[[Layer], None], recur: Callable[[fx.Node], None]
    ) -> None:
        """Operators that run together: one, or the calls of one weight."""
        dense, pruned = self._dense, self._pruned
        norms = {node: self._norms.adapt(node) for node in step}
        for node in step:
            dense.values[node] = self._written_by(node, norms[node])
        weight = self._weights.get(step[0])
        met = weight is not None and any(self.differs(node.args[0]) for node in step)
        if weight is not None and (met or self._everywhere):
            calls = tuple(map(self._call, step))
            uses = sum(other == weight for other in self._weights.values())
            visit(Layer(weight.removesuffix(".weight"), weight, calls, uses))
        for node in filter(is_recurrent, step):
            if self.cut.narrows(node) or any(map(self.differs, node.all_input_nodes)):
                for tensor in tensors_of(node):  # the visit may change them
                    if (name := self.reading.network.tensors.get(tensor.name)) is not None:
                        pruned.values[tensor] = pruned.tensor(name)
                recur(node)
        for node in step:
            if _last(node):
                self._forget(node)
                continue
            # A constant expanded to all channels has no operand that differs, and yet is narrower.
            differs = met or any(map(self.differs, node.all_input_nodes))
            if differs or self.cut.narrows(node):
                adapt = self._at_new_width(node, norms[node], pruned.tensors)
                pruned.values[node] = self._store.keep(pruned.chunks(node, adapt))
            else:
                pruned.values[node] = dense.values[node]

    def _written_by(self, node: fx.Node, norm: Adapt) -> Sequence[Tensor]:
        """The dense value: kept, or computed anew where a visit alone asks for it."""
        if not _last(node) or node in self._regions:
            return self._store.keep(self._dense.chunks(node, norm))
        return Mapped(lambda i: self._dense.chunk(node, i, norm), self._dense.count(node))

    def _call(self, node: fx.Node) -> Call:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return Call(
            node,
            geometry_of(node, self.cut.literals(node).get(6)),
            bias_of(node, self.reading.network),
            self._pruned.values[source],
            self._kept(node),
        )

    def _kept(self, node: fx.Node) -> Sequence[Tensor]:
        """The dense value without the channels that leave, by chunk."""
        dense = self._dense.values[node]
        return Mapped(lambda i: self.cut.slice(node, dense[i]), len(dense))

    def _at_new_width(
        self, node: fx.Node, recalibrate: Adapt, tensors: Mapping[str, Tensor]
    ) -> Adapt:
        def adapt(args: list[Any]) -> list[Any]:
            weight = self._weights.get(node)
            if weight is not None:  # it and the bias may have been changed by the visit
                bias = self._added.get(weight, bias_of(node, self.reading.network))
                applied = as_applied(node, tensors[weight])
                args[1:3] = [applied, None if bias is None else tensors[bias]]
            return self.cut.arguments(node, recalibrate(args))

        return adapt


def _last(node: fx.Node) -> bool:
    """Whether the network returns what an operator computes, and nothing else reads it."""
    return bool(node.users) and all(user.op == "output" for user in node.users)

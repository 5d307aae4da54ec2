"""What a pruned network costs to keep and to run, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bequest.execution.modules import require_module
from bequest.execution.running import evaluation_mode, run
from bequest.sparse.encoding import stored_bytes
from bequest.sparse.geometry import KINDS, LayerGeometry
from bequest.sparse.recovered import Recovered


@dataclass(frozen=True)
class LayerStorage:
    """One layer.

    Attributes:
        layer: its name.
        weights: number of its weights, the pruned ones included.
        stay: those that are not zero; of a recovered layer, those that are no mean.
        dense_bytes: of all its tensors, had nothing been pruned or recovered.
        bytes: of all its tensors as they are saved.
        dense_multiplications: of one input through the dense layer.
        multiplications: of one input, where none is spent on a weight of zero.
        additions: of one input, on the same terms; a recovered layer's sum over the inputs is in
            them.
    """

    layer: str
    weights: int
    stay: int
    dense_bytes: int
    bytes: int
    dense_multiplications: int
    multiplications: int
    additions: int


def storage(module: nn.Module, example_inputs: Any) -> list[LayerStorage]:
    """Counts bytes and operations of every linear and convolution layer, plain or recovered.

    The operations are those that the sparse weights ask for. PyTorch's dense kernels multiply by
    the zeros too; the count is what a kernel for sparse weights has to do.

    Args:
        module: the network.
        example_inputs: a tensor, tuple or dict of one input (batch of one).

    Raises:
        UsageError: ``module`` is none, or fails on the inputs.
    """
    require_module(module)
    layers = {
        name: part
        for name, part in module.named_modules()
        if type(part) in KINDS or isinstance(part, Recovered)
    }
    positions: dict[str, int] = {}

    def count(name: str, width: int) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            positions[name] = positions.get(name, 0) + output.numel() // width

        return hook

    hooks = [
        layer.register_forward_hook(count(name, _geometry(layer).shape[0]))
        for name, layer in layers.items()
    ]
    try:
        with evaluation_mode(module):
            run(module, example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [_counted(name, layer, positions.get(name, 0)) for name, layer in layers.items()]


def _geometry(layer: nn.Module) -> LayerGeometry:
    return layer.geometry if isinstance(layer, Recovered) else LayerGeometry.of(layer)  # type: ignore[arg-type]


def _counted(name: str, layer: nn.Module, positions: int) -> LayerStorage:
    weight = layer.sparse if isinstance(layer, Recovered) else layer.weight
    assert isinstance(weight, Tensor)
    width, count = len(weight), weight.numel()
    stay = int(weight.count_nonzero())
    multiplications = additions = stay
    if isinstance(layer, Recovered):
        # One sum per group over all that a filter reads; times c, added, for each filter.
        multiplications += width
        additions += layer.geometry.groups * (count // width) + width
        if layer.deviation is not None:
            # Every pruned weight's input is added or subtracted; times d, added, for each filter.
            multiplications += width
            additions += count - stay + width
    held = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    bias = 0 if layer.bias is None else width
    return LayerStorage(
        layer=name,
        weights=count,
        stay=stay,
        dense_bytes=(count + bias) * weight.element_size(),
        bytes=stored_bytes(held),
        dense_multiplications=count * positions,
        multiplications=multiplications * positions,
        additions=additions * positions,
    )

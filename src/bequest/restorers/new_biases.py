"""Biases that a class has no place for: kept out, or taken up by the batch norm behind the layer.

A class of transformers makes its layers from a configuration that hardly ever can say that one of
them has a bias. ``from_pretrained`` then drops a new one without a word. Where the layer's output
goes to a batch norm alone, (W·x + b − μ)/σ = (W·x − (μ − b))/σ: its stored mean holds the bias.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, fx, nn

from bequest.execution.precision import rounded
from bequest.graph.rules import Reading
from bequest.graph.trace import named_tensors


def mean_behind(reading: Reading, layer: str) -> str | None:
    """Name of the stored mean of the batch norm that alone reads what a layer writes; None = none.

    Args:
        reading: of the network.
        layer: qualified name of a layer that one operator applies.
    """
    names = reading.network.tensors
    weights = [node for node in reading.network.nodes if names.get(node.name) == f"{layer}.weight"]
    calls = [user for weight in weights for user in weight.users]
    norms = [user for call in calls for user in call.users]
    if len(calls) != 1 or len(norms) != 1 or reading.roles.get(norms[0]) != "norm":
        return None
    mean = norms[0].args[3]
    alone = isinstance(mean, fx.Node) and len(mean.users) == 1 and norms[0].args[0] is calls[0]
    return names.get(mean.name) if isinstance(mean, fx.Node) and alone else None


def taken_up(model: nn.Module, reading: Reading, layers: Iterable[str]) -> None:
    """Moves biases into the stored means behind them, in place.

    Args:
        model: the pruned network.
        reading: of the dense one.
        layers: have a bias that their class doesn't know, and a :func:`mean_behind`.
    """
    tensors = named_tensors(model)
    for layer in layers:
        name, module = mean_behind(reading, layer), model.get_submodule(layer)
        bias = module.bias
        assert name is not None
        assert isinstance(bias, Tensor)
        mean = tensors[name]
        raised = mean.double() - bias.detach().double()
        mean.copy_(rounded(name, raised, mean.dtype, "it took a bias up"))
        module.register_parameter("bias", None)

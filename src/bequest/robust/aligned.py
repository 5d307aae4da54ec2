"""Two networks as one graph with two sets of weights, where the plan says how.

The pruned network is written in the shapes of the dense one, with zeros where channels have left:
what reads such a channel reads nothing. Whether that is the same function is tried out before
anything is built on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bequest.artifact.fingerprint import fingerprint
from bequest.artifact.lineage import recall
from bequest.errors import UsageError
from bequest.execution.copies import duplicate
from bequest.execution.randomness import stream
from bequest.graph.inputs import normalise_inputs, tensors_of, with_tensors
from bequest.graph.reading import Reading
from bequest.graph.rules import read
from bequest.graph.trace import Network, named_tensors, trace
from bequest.pruning import Pruned
from bequest.robust.folding import folded
from bequest.robust.inputs import one_input
from bequest.robust.rules import rule_of
from bequest.robust.shapes import dense_shaped
from bequest.robust.twins import Weights
from bequest.surgery import operation
from bequest.surgery.operation import Surgery

ALIKE = 1e-6
"""How far the aligned network's results may be from the pruned one's, relative to the largest."""


@dataclass(frozen=True)
class Aligned:
    """One graph, and the weights of both networks in it.

    Attributes:
        network: the graph, of batch size one.
        weights: qualified name → tensors in float64, batch norms folded into the layers before.
    """

    network: Network
    weights: Mapping[str, Weights]

    @classmethod
    def alone(cls, model: nn.Module, example: Any) -> Aligned:
        """A network beside itself."""
        reading = read(trace(model, one_input(example)))
        tensors = folded(reading, _in_double(named_tensors(model)))
        return cls(reading.network, {name: Weights(one, one) for name, one in tensors.items()})


def module_of_pruned(pruned: Any) -> nn.Module:
    """The network itself.

    Raises:
        UsageError: it is neither a network nor what pruning returns.
    """
    model = pruned.model if isinstance(pruned, Pruned) else pruned
    if not isinstance(model, nn.Module):
        raise UsageError(
            "pruned: expected what bequest.prune returned, or a network, found "
            f"{type(pruned).__name__}; a saved folder is read by bequest.load"
        )
    return model


def aligned(dense: nn.Module, pruned: Any, example: Any) -> Aligned | None:
    """Both networks in the graph of the dense one; None where they have no common shape.

    Args:
        dense: the dense network.
        pruned: a :class:`bequest.Pruned`, a network that remembers its plan, or any network.
        example: one input, or several, of which only shapes matter.
    """
    model = module_of_pruned(pruned)
    surgery = _surgery(dense, pruned, model)
    if surgery is None:
        return None
    dense = duplicate(dense).double().eval()
    for layer in surgery.biases:
        operation.add_bias(dense, layer)
    example = _double(one_input(example))
    reading = read(trace(dense, example))
    if any(rule_of(node) is not None for node in reading.normalised):
        return None  # a norm that is written out counts the channels that have left
    first = _in_double(named_tensors(dense))
    second = dense_shaped(first, named_tensors(model), surgery)
    if not _computes(dense, second, model, example):
        return None
    return Aligned(reading.network, _weights(reading, first, second))


def _surgery(dense: nn.Module, pruned: Any, model: nn.Module) -> Surgery | None:
    """What made the one of the other; nothing where both have the same tensors."""
    lineage = recall(model)
    plan = None if lineage is None else lineage.plan
    if isinstance(pruned, Pruned):
        plan = pruned.plan
    if plan is not None and plan.architecture == fingerprint(dense):
        return plan.surgery
    return Surgery((), (), ()) if fingerprint(model) == fingerprint(dense) else None


def _weights(
    reading: Reading, first: Mapping[str, Tensor], second: Mapping[str, Tensor]
) -> dict[str, Weights]:
    before, after = folded(reading, first), folded(reading, second)
    return {
        name: Weights(one, one if torch.equal(one, after[name]) else after[name])
        for name, one in before.items()
    }


def _computes(
    dense: nn.Module, tensors: Mapping[str, Tensor], model: nn.Module, example: Any
) -> bool:
    """Whether the dense network with those tensors does what the pruned one does."""
    generator = stream(0)
    made = [
        torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.device)
        for one in tensors_of(normalise_inputs(example))
    ]
    args, kwargs = normalise_inputs(with_tensors(example, made))
    with torch.no_grad():
        try:
            wanted = duplicate(model).double().eval()(*args, **kwargs)
            found = functional_call(dense, dict(tensors), args, kwargs)
        except (RuntimeError, KeyError, TypeError, ValueError):
            return False
    if not (isinstance(wanted, Tensor) and isinstance(found, Tensor)):
        return False
    if wanted.shape != found.shape:
        return False
    return bool((wanted - found).abs().max() <= ALIKE * max(1e-300, float(wanted.abs().max())))


def _double(example: Any) -> Any:
    args, kwargs = normalise_inputs(example)
    tensors = [
        one.detach().double() if one.is_floating_point() else one
        for one in tensors_of((args, kwargs))
    ]
    return with_tensors(kwargs or args, tensors)


def _in_double(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: one.detach().double() if one.is_floating_point() else one.detach()
        for name, one in tensors.items()
    }

"""Layers of a network by name: which own their filters, and others in their place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from bequest.execution.copies import duplicate


def replaced(
    module: nn.Module,
    layers: Mapping[str, nn.Module],
    make: Callable[[str, nn.Module], nn.Module],
) -> nn.Module:
    """A copy of ``module`` in which ``make(name, copied layer)`` stands for each of ``layers``.

    A layer that stands in several places is made once and stands in all of them. What is made is
    in the mode of the layer before it.
    """
    copied = duplicate(module)
    made: dict[int, nn.Module] = {}
    for name in layers:
        old = copied.get_submodule(name)
        made[id(old)] = make(name, old).train(old.training)
    if "" in layers:
        return made[id(copied)]
    for parent in list(copied.modules()):
        for attribute, child in parent._modules.items():
            if id(child) in made:
                setattr(parent, attribute, made[id(child)])
    return copied


def sole_owners(
    module: nn.Module, filters: Callable[[nn.Module], Tensor | None]
) -> dict[str, nn.Module]:
    """The layers with filters that no other module holds, by qualified name.

    Args:
        module: a network or a single layer, whose name is "".
        filters: the parameter whose rows are a layer's filters, None for any other module.
    """
    owners = Counter(
        id(parameter) for part in module.modules() for parameter in part._parameters.values()
    )
    found = ((name, layer, filters(layer)) for name, layer in module.named_modules())
    return {name: layer for name, layer, own in found if own is not None and owners[id(own)] == 1}

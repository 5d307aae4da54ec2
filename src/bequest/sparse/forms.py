"""The forms of a pruned network's layers, by name, so that a plain network can be given them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from bequest.errors import ModelError
from bequest.sparse.geometry import plain_filters
from bequest.sparse.layers import replaced, sole_owners
from bequest.sparse.recovered import Recovered
from bequest.sparse.remains import has_remains, make_room


def forms_of(module: nn.Module) -> dict[str, str]:
    """Which layers have another form than the plain network's: name → "pruned", ...

    With it and a fresh plain network, :func:`rebuild` makes a network of the same form.
    """
    found = {}
    for name, layer in module.named_modules():
        if isinstance(layer, Recovered):
            found[name] = "recovered" if layer.deviation is None else "recovered-signed"
        elif has_remains(layer):
            found[name] = "pruned"
    return found


def rebuild(module: nn.Module, forms: Mapping[str, str]) -> nn.Module:
    """A copy of a plain network with layers of the forms that :func:`forms_of` found.

    Their values are to be loaded afterwards.

    Raises:
        ModelError: the network has no such layer, or a form is unknown.
    """
    layers = sole_owners(module, plain_filters)
    for name in forms:
        if name not in layers:
            raise ModelError(f"expected a linear or convolution layer named '{name}', found none")

    def shaped(name: str, layer: nn.Module) -> nn.Module:
        form, plain = forms[name], layer
        if form == "pruned":
            make_room(plain)  # type: ignore[arg-type]
            return plain
        if form in ("recovered", "recovered-signed"):
            return Recovered.empty(plain, signed=form == "recovered-signed")  # type: ignore[arg-type]
        raise ModelError(f"'{name}': expected a form of a pruned layer, found {form!r}")

    return replaced(module, {name: layers[name] for name in forms}, shaped)

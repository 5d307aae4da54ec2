"""The forms of a pruned network's layers, by name, so that a plain network can be given them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from bequest.errors import ModelError
from bequest.hypersphere.convert import deconvert, replaced
from bequest.hypersphere.prunable import prunable
from bequest.hypersphere.pruned import has_remains, make_room
from bequest.hypersphere.recovered import Recovered


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
    layers = prunable(module)
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


def as_plain(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with plain layers where single weights were pruned, and a note that says so.

    What such layers keep of the weights that left has a place for every weight of the layer, so it
    can't outlast a loss of channels. A network without such layers is returned itself.
    """
    forms = forms_of(module) if isinstance(module, nn.Module) else {}
    if not forms:
        return module, ()
    names = ", ".join(f"'{name}'" for name in forms)
    return deconvert(module), (f"{names}: what pruning of single weights had kept is given up",)

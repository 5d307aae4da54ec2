"""From plain layers to hyperspherical ones and back."""

from __future__ import annotations

from torch import nn

from bequest.errors import UsageError
from bequest.execution.modules import require_module
from bequest.hypersphere.layers import CosineClassifier, Hyperspherical, Operator
from bequest.hypersphere.prunable import prunable
from bequest.sparse.forms import forms_of
from bequest.sparse.geometry import KINDS, LayerGeometry
from bequest.sparse.layers import replaced
from bequest.sparse.recovered import Recovered
from bequest.sparse.remains import has_remains


def convert(
    module: nn.Module,
    operator: Operator = "cosine",
    *,
    input_norm: bool = False,
    classifier: str | None = None,
    scale: float = 16.0,
) -> nn.Module:
    """Puts the filters of every linear and convolution layer on the unit sphere.

    With the defaults the network computes what it computed before; its weights become directions
    and gains. Another operator, a normalised input or a cosine classifier change the function and
    are meant for training from there.

    Args:
        module: a network, or a single layer; it is not changed.
        operator: how angles become responses; see :class:`Hyperspherical`.
        input_norm: divide by the norm of what a filter reads.
        classifier: name of the linear layer that becomes a :class:`CosineClassifier`.
        scale: initial factor of its logits.

    Returns:
        A converted copy, in the same mode, on the same device, of the same dtype and memory
        format; what a frozen weight became is frozen.

    Raises:
        UsageError: no such operator, or ``classifier`` names no linear layer.
        ModelError: the module has no linear or convolution layer.
    """
    plain = {name: layer for name, layer in prunable(module).items() if type(layer) in KINDS}
    if classifier is not None and not isinstance(plain.get(classifier), nn.Linear):
        linear = [name for name, layer in plain.items() if isinstance(layer, nn.Linear)]
        raise UsageError(
            f"classifier: expected the name of a linear layer ({', '.join(linear) or 'none'}), "
            f"found {classifier!r}"
        )

    def on_sphere(name: str, layer: nn.Module) -> nn.Module:
        if name == classifier:
            return CosineClassifier(layer, scale)  # type: ignore[arg-type]
        return Hyperspherical(layer, operator, input_norm=input_norm)  # type: ignore[arg-type]

    return replaced(module, plain, on_sphere)


def deconvert(module: nn.Module) -> nn.Module:
    """The plain network that computes the same.

    Hyperspherical layers and recovered ones become plain layers, a cosine classifier becomes a
    plain one behind the division by the input's norm, and pruned layers forget what they kept of
    the pruned weights. Mode, device, dtype, memory format and what is frozen stay.

    Args:
        module: what :func:`convert`, :func:`bequest.hypersphere.prune` or
            :func:`bequest.hypersphere.recover` made, trained or not; it is not changed.

    Raises:
        UsageError: ``module`` is none.
        ModelError: a layer's operator is not linear in its input, so that no plain layer computes
            the same.
    """
    require_module(module)
    found = {name: part for name, part in module.named_modules() if _is_special(part)}
    return replaced(module, found, _plain)


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


def _is_special(layer: nn.Module) -> bool:
    made_here = isinstance(layer, Hyperspherical | CosineClassifier | Recovered)
    return made_here or has_remains(layer)


def _plain(name: str, layer: nn.Module) -> nn.Module:
    if isinstance(layer, CosineClassifier):
        return layer.plain()
    if isinstance(layer, Hyperspherical | Recovered):
        own = layer.direction if isinstance(layer, Hyperspherical) else layer.sparse
        return layer.geometry.make(layer.weight, layer.bias, own)
    return LayerGeometry.of(layer).make(layer.weight, layer.bias, layer.weight)  # type: ignore[arg-type]

"""Prune at any moment, and put the mean of the pruned weights in their place.

Source: Liu, Liu, "Pruning on-the-fly: a recoverable pruning method without fine-tuning", arXiv
2212.12651. That accuracy is recovered by the mean of the pruned values is theirs; over which of
them the mean is taken is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bequest.errors import ModelError, UsageError
from bequest.execution.modules import require_module
from bequest.hypersphere.convert import deconvert
from bequest.hypersphere.masks import check_sparsity, make_masks
from bequest.hypersphere.prunable import directions
from bequest.hypersphere.spectrum import preserving
from bequest.sparse.geometry import Plain
from bequest.sparse.layers import replaced
from bequest.sparse.recovered import Recovered
from bequest.sparse.remains import Remains, Scope, has_remains


def prune(
    module: nn.Module,
    sparsity: float,
    *,
    mask: str = "layer",
    skip: Sequence[str] = (),
    seed: int = 0,
) -> nn.Module:
    """Sets a share of the weights to zero, without retraining.

    What :func:`recover` needs stays in the pruned layers as buffers: a bit for each pruned place
    and for its sign, and two means per filter.

    Args:
        module: a network or a single layer, plain or hyperspherical; it is not changed.
        sparsity: share of the weights that go, in [0, 1).
        mask: which: "layer", "filter", "global", "N:M" or "whole-filter", see
            :func:`bequest.hypersphere.masks.make_masks`; or "spectrum", see
            :func:`bequest.hypersphere.spectrum.preserving`, which also changes the weights that
            stay and leaves nothing to recover.
        skip: shell patterns of the names of layers that stay whole.
        seed: of the sampling of "spectrum".

    Returns:
        A copy with plain layers, in the same mode and on the same device.

    Raises:
        UsageError: an argument is out of range, or a layer does not suit the mask.
        ModelError: there is no layer to prune, or one that no plain layer can stand for.
    """
    check_sparsity(sparsity)
    plain = deconvert(module)
    weights = {name: weight.detach() for name, weight in directions(plain, skip).items()}
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ModelError(f"'{name}' has NaN or infinite weights")
    if mask == "spectrum":
        for weight in weights.values():
            weight.copy_(preserving(weight, sparsity, seed=seed))
        return plain
    for name, kept in make_masks(weights, sparsity, mask).items():
        layer: Plain = plain.get_submodule(name)  # type: ignore[assignment]
        Remains.of(weights[name], kept).store(layer)
        weights[name].masked_fill_(~kept, 0)  # a product would leave -0.0, which takes storage
    return plain


def recover(module: nn.Module, scope: Scope = "filter") -> nn.Module:
    """Puts the mean of the pruned weights in their place.

    For inputs of one mean μ pruning shifts a filter's mean output by −μ Σ (pruned weights). The
    mean over the filter restores it exactly, and no constant per filter leaves a smaller error in
    the weights. It costs one sum over the inputs for the whole layer: see :class:`Recovered`.

    Args:
        module: what :func:`prune` returned; it is not changed.
        scope: one mean per "filter", per "layer", or two per filter: of its pruned weights above
            0 and of the others ("signed").

    Returns:
        A copy in which every pruned layer is a :class:`Recovered` one.

    Raises:
        UsageError: no such scope, or the module was not pruned here.
    """
    require_module(module)
    pruned = {name: part for name, part in module.named_modules() if has_remains(part)}
    if not pruned:
        raise UsageError(
            f"recover: expected a module that bequest.hypersphere.prune returned, with what it "
            f"keeps of the pruned weights; found none in {type(module).__name__}"
        )
    return replaced(module, pruned, lambda _, layer: Recovered.of(layer, scope))  # type: ignore[arg-type]

"""What to say where a saved network and the one to load it into don't fit each other."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bequest.artifact.fingerprint import stored_tensors
from bequest.artifact.lineage import recall
from bequest.artifact.manifest import Manifest
from bequest.sparse.encoding import TensorSpec

_LISTED = 3


def specs(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """What tensors are, by name."""
    return {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}


def differences(expected: Mapping[str, TensorSpec], found: Mapping[str, TensorSpec]) -> str:
    """The first tensors that differ, in words; empty where none does."""
    words = [
        f"{name!r} (expected {expected.get(name, 'none')}, found {found.get(name, 'none')})"
        for name in dict.fromkeys((*expected, *found))
        if expected.get(name) != found.get(name)
    ]
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return ", ".join(words[:_LISTED]) + more


def advice(fresh_model: nn.Module, manifest: Manifest) -> str:
    """What to pass instead of a model that an artefact doesn't fit."""
    lineage = recall(fresh_model)
    if lineage is not None and lineage.plan.architecture == manifest.plan.architecture:
        return (
            "fresh_model was pruned already and the folder holds every step: pass an instance of "
            "the network as it was before the first of them"
        )
    source = manifest.plan.recipe.get("model")
    if isinstance(source, str) and ":" not in source:  # a folder; others are zoo:NAME and the like
        return f"the network was pruned before: pass bequest.load({source!r}, fresh_model)"
    same = "pass an instance of the network that was pruned, built with the same arguments"
    if _is_wider(stored_tensors(fresh_model), manifest):
        same += (
            "; where it had been pruned before, load the folder of that pruning into fresh_model "
            "first, and pass what bequest.load returns"
        )
    return same


def _is_wider(tensors: Mapping[str, Tensor], manifest: Manifest) -> bool:
    """Whether the saved tensors could be what is left of these."""
    saved = manifest.tensors
    made = {f"{layer}.bias" for layer in manifest.plan.surgery.biases}
    return tensors.keys() == saved.keys() - made and all(
        len(saved[name].shape) == tensor.ndim
        and all(left <= size for left, size in zip(saved[name].shape, tensor.shape, strict=True))
        for name, tensor in tensors.items()
    )

"""Takes channels out of a model, in place: tensors are cut, attributes follow, biases are added.

A :class:`Surgery` is plain data. It is made once from a plan, applied to the copy that is pruned,
written to plan.json, and replayed on a fresh instance when an artefact is loaded.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bequest.errors import ModelError
from bequest.execution.paging import let_go
from bequest.execution.spans import spans

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class TensorCut:
    """The indices that stay along one dimension of one parameter or buffer.

    Attributes:
        tensor: qualified name, e.g. ``layer1.0.conv1.weight``; other names of a shared tensor
            follow it.
        dim: the dimension.
        keep: ascending indices. With ``blocks`` > 1: for each block in turn, as many indices local
            to that block.
        blocks: 1, or the number of groups of a grouped convolution whose input dimension is cut:
            the rows (dimension 0) fall into that many equal blocks, each with its own indices.
    """

    tensor: str
    dim: int
    keep: tuple[int, ...]
    blocks: int = 1


@dataclass(frozen=True)
class Attribute:
    """A number that a module keeps about its width, e.g. ``conv1.out_channels``: 64 → 32."""

    module: str
    name: str
    before: int | tuple[int, ...]
    after: int | tuple[int, ...]


@dataclass(frozen=True)
class Surgery:
    """All that is done to a model: cuts in order, then attributes, then new biases.

    ``biases`` names modules without a bias that get one (zeros until a restorer writes it).
    """

    cuts: tuple[TensorCut, ...]
    attributes: tuple[Attribute, ...]
    biases: tuple[str, ...]


def apply(model: nn.Module, surgery: Surgery) -> None:
    """Performs ``surgery`` on ``model`` in place; the model must have its dense shapes.

    Raises:
        ModelError: a tensor, module or attribute isn't there, or hasn't the width that the
            surgery expects. Nothing is changed then that matters: the caller works on a copy.
    """
    narrow(model, surgery.cuts)
    modules = dict(model.named_modules())
    for change in surgery.attributes:
        module = modules.get(change.module)
        holder, _, name = change.name.rpartition(".")
        found = getattr(getattr(module, holder, None) if holder else module, name, None)
        if module is None or _plain(found) != change.before:
            raise ModelError(
                f"expected {change.module}.{change.name} = {change.before}, found {found}; "
                "the model is not the one that the surgery was planned for"
            )
        if holder:  # a configuration that other modules share
            setattr(module, holder, copy.copy(getattr(module, holder)))
        setattr(getattr(module, holder) if holder else module, name, change.after)
    for name in surgery.biases:
        add_bias(model, name)
    for module in modules.values():
        _forget(module)


def narrow(model: nn.Module, cuts: Sequence[TensorCut]) -> None:
    """Performs cuts alone, in order.

    Raises:
        ModelError: as :func:`apply`.
    """
    owners, of_tensor = _owners(model), defaultdict[int, list[TensorCut]](list)
    for cut in cuts:
        if cut.tensor not in owners:
            raise ModelError(f"the surgery cuts '{cut.tensor}', which the model does not have")
        of_tensor[id(owners[cut.tensor])].append(cut)  # whatever name it is called by
    for those in of_tensor.values():
        _replace(owners[those[0].tensor], those)


def is_transposed_linear(module: nn.Module) -> bool:
    """Whether a module is GPT-2's ``Conv1D``: a linear layer of weight (nx, nf), by their names."""
    weight = module._parameters.get("weight")
    sizes = getattr(module, "nx", None), getattr(module, "nf", None)
    return weight is not None and tuple(weight.shape) == sizes


def can_hold_bias(model: nn.Module, name: str) -> bool:
    """Whether the layer ``name`` has a bias, or a place for one that its ``forward`` reads."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return False
    return "bias" in module._parameters and isinstance(module, _LAYERS)


def add_bias(model: nn.Module, name: str) -> None:
    """Gives the convolution or linear layer ``name``, which has none, a bias of zeros."""
    if not can_hold_bias(model, name) or model.get_submodule(name).bias is not None:
        raise ModelError(f"expected a convolution or linear layer without a bias at '{name}'")
    module = model.get_submodule(name)
    weight = module.weight
    assert isinstance(weight, Tensor)
    width = weight.shape[0]
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        width = weight.shape[1] * module.groups
    module.bias = nn.Parameter(weight.new_zeros(width), requires_grad=weight.requires_grad)


def _owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Every name of a tensor → all the places that hold the same tensor."""
    places: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    names: dict[str, int] = {}
    for prefix, module in model.named_modules():
        for attribute, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                names[f"{prefix}.{attribute}" if prefix else attribute] = id(tensor)
                places[id(tensor)].append((module, attribute))
    return {name: places[key] for name, key in names.items()}


def _replace(places: Sequence[tuple[nn.Module, str]], cuts: Sequence[TensorCut]) -> None:
    """Puts what cuts leave of a tensor where the tensor was."""
    module, attribute = places[0]
    tensor: Tensor = getattr(module, attribute)
    smaller = select(tensor.detach(), cuts)
    let_go(tensor)
    if isinstance(tensor, nn.Parameter):
        smaller = nn.Parameter(smaller, requires_grad=tensor.requires_grad)
    for module, attribute in places:
        setattr(module, attribute, smaller)


def laid_out_as(like: Tensor, values: Tensor) -> Tensor:
    """The values in the memory format of another tensor: channels last where that is.

    Of one whose strides go with both formats, as a kernel of one place has, those strides decide.
    """
    form = {4: torch.channels_last, 5: torch.channels_last_3d}.get(like.ndim)
    plain = torch.empty(like.shape, device="meta").stride()
    if form is None or like.stride() == plain or not like.is_contiguous(memory_format=form):
        return values
    return torch.empty_like(values, memory_format=form).copy_(values)


def select(tensor: Tensor, cuts: Sequence[TensorCut]) -> Tensor:
    """What cuts, in order, leave of a tensor, in its memory format.

    Raises:
        ModelError: it hasn't the indices that a cut keeps.
    """
    apart = len({cut.dim for cut in cuts}) == len(cuts)
    if apart and len(cuts) > 1 and all(cut.blocks == 1 for cut in cuts):
        return laid_out_as(tensor, _crossed(tensor, cuts))
    left = tensor
    for cut in cuts:
        left = _chosen(left, cut)
    return laid_out_as(tensor, left)


def _crossed(tensor: Tensor, cuts: Sequence[TensorCut]) -> Tensor:
    """What cuts of several dimensions leave, without what the first of them alone would leave."""
    size = list(tensor.shape)
    for cut in cuts:
        _require_indices(tensor.shape, cut)
        size[cut.dim] = len(cut.keep)
    last, keep = cuts[-1], torch.tensor(cuts[-1].keep, device=tensor.device)
    smaller = tensor.new_empty(size)
    for part in spans(smaller, last.dim):
        block = tensor.index_select(last.dim, keep[part])
        for cut in cuts[:-1]:
            block = _chosen(block, cut)
        smaller.movedim(last.dim, 0)[part] = block.movedim(last.dim, 0)
    return smaller


def _require_indices(size: Sequence[int], cut: TensorCut) -> None:
    width = size[cut.dim] if cut.dim < len(size) else 0
    if not cut.keep or max(cut.keep) >= width or size[0] % cut.blocks:
        raise ModelError(
            f"the surgery keeps {len(cut.keep)} indices up to {max(cut.keep, default=-1)} of "
            f"'{cut.tensor}', dimension {cut.dim}, which has the shape {tuple(size)}"
        )


def _chosen(tensor: Tensor, cut: TensorCut) -> Tensor:
    _require_indices(tensor.shape, cut)
    keep = torch.tensor(cut.keep, device=tensor.device)
    if cut.blocks == 1:
        return tensor.index_select(cut.dim, keep)
    rows = tensor.reshape(cut.blocks, -1, *tensor.shape[1:])
    parts = zip(rows, keep.view(cut.blocks, -1), strict=True)
    return torch.cat([block.index_select(cut.dim, chosen) for block, chosen in parts])


def _forget(module: nn.Module) -> None:
    """Empties what a module has computed from its tensors and keeps per device, at dense width.

    Such caches (of attention biases, in timm) are filled by the first forward pass on a device.
    """
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers", "_modules") or not isinstance(value, dict):
            continue
        if all(_is_device(key) and isinstance(held, Tensor) for key, held in value.items()):
            value.clear()


def _is_device(key: object) -> bool:
    try:
        return isinstance(key, torch.device) or bool(isinstance(key, str) and torch.device(key))
    except RuntimeError:  # torch.device knows no such name
        return False


def _plain(value: object) -> object:
    """Attributes such as ``normalized_shape`` compare as tuples of int."""
    return tuple(value) if isinstance(value, list | tuple) else value

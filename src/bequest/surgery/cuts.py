"""From the channels that leave to the surgery: which indices of which tensors stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import Tensor, fx, nn

from bequest.graph.ledger import Layout
from bequest.graph.trace import module_of, named_tensors
from bequest.surgery.attributes import mend
from bequest.surgery.cut import Cut
from bequest.surgery.operation import Attribute, Surgery, TensorCut, is_transposed_linear
from bequest.surgery.training import training_cuts

Sizes = dict[tuple[str, int], int]
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def plan_surgery(cut: Cut, model: nn.Module) -> Surgery:
    """The surgery that makes a cut.

    Args:
        cut: who leaves.
        model: the dense model; only shapes and attributes are read.
    """
    cuts = [*_grouped_cuts(cut), *_plain_cuts(cut), *training_cuts(cut)]
    sizes: Sizes = {(one.tensor, one.dim): len(one.keep) // one.blocks for one in cuts}
    said = [*_attributes(model, sizes), *_bare_norms(cut, model)]
    names = {(one.module, one.name) for one in said}
    guessed = (one for one in mend(cut, model) if (one.module, one.name) not in names)
    return Surgery(tuple(cuts), (*said, *guessed), ())


def _plain_cuts(cut: Cut) -> Iterator[TensorCut]:
    for (tensor, dim), labels in cut.channels.reading.ledger.slots.items():
        gone = cut.gone(labels)
        if gone.any():
            yield TensorCut(tensor, dim, tuple(np.flatnonzero(~gone).tolist()))


def _grouped_cuts(cut: Cut) -> Iterator[TensorCut]:
    """Input columns of grouped convolutions, before their rows are cut: blocks are whole then."""
    done = set()
    for read in cut.channels.reading.reads:
        gone = cut.gone(read.labels)
        if read.groups == 1 or read.weight is None or read.weight in done or not gone.any():
            continue
        done.add(read.weight)
        local = [np.flatnonzero(~block) for block in gone.reshape(read.groups, -1)]
        yield TensorCut(read.weight, 1, tuple(np.concatenate(local).tolist()), read.groups)


def _attributes(model: nn.Module, sizes: Sizes) -> Iterator[Attribute]:
    """What modules write down about their widths, from the new shapes of their tensors."""
    touched = dict.fromkeys(tensor.rpartition(".")[0] for tensor, _ in sizes)
    modules = dict(model.named_modules())
    for name in touched:
        module = modules[name]
        for attribute, after in _widths(name, module, sizes).items():
            before = getattr(module, attribute)
            before = tuple(before) if isinstance(before, list | tuple) else before
            if before != after:
                yield Attribute(name, attribute, before, after)


def _widths(name: str, module: nn.Module, sizes: Sizes) -> dict[str, int | tuple[int, ...]]:
    def size(tensor: str, dim: int) -> int:
        held: Tensor = getattr(module, tensor)
        return sizes.get((f"{name}.{tensor}" if name else tensor, dim), held.shape[dim])

    widths: dict[str, int | tuple[int, ...]] = {}
    if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
        groups, rows = module.groups, module.weight.shape[0]
        if groups > 1 and module.weight.shape[1] == 1:  # depthwise: a group per channel
            groups = groups * size("weight", 0) // rows
            widths["groups"] = groups
        ends = ("out_channels", "in_channels")
        first, second = ends if isinstance(module, _CONVOLUTIONS) else reversed(ends)
        widths |= {first: size("weight", 0), second: size("weight", 1) * groups}
    elif isinstance(module, nn.Linear):
        widths = {"out_features": size("weight", 0), "in_features": size("weight", 1)}
    elif is_transposed_linear(module):
        widths = {"nx": size("weight", 0), "nf": size("weight", 1)}
    elif isinstance(module, nn.Embedding):
        widths = {"embedding_dim": size("weight", 1)}
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        held = "running_mean" if module.running_mean is not None else "weight"
        widths = {"num_features": size(held, 0)}
    elif isinstance(module, nn.GroupNorm):
        widths = {"num_channels": size("weight", 0)}
        if module.num_groups == module.num_channels:
            widths["num_groups"] = size("weight", 0)
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        dims = range(len(module.normalized_shape))
        widths = {"normalized_shape": tuple(size("weight", dim) for dim in dims)}
    elif isinstance(module, nn.PReLU):
        widths = {"num_parameters": size("weight", 0)}
    elif isinstance(module, nn.Bilinear):
        named = enumerate(("out_features", "in1_features", "in2_features"))
        widths = {attribute: size("weight", dim) for dim, attribute in named}
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        widths = _recurrent_widths(module, size)
    return widths


def _recurrent_widths(
    module: nn.Module, size: Callable[[str, int], int]
) -> dict[str, int | tuple[int, ...]]:
    """Those of a recurrent layer, or of a cell."""
    if isinstance(module, nn.RNNCellBase):
        return {"input_size": size("weight_ih", 1), "hidden_size": size("weight_hh", 1)}
    projected = "weight_hr_l0" in module._parameters
    return {
        "input_size": size("weight_ih_l0", 1),
        "hidden_size": size("weight_hr_l0" if projected else "weight_hh_l0", 1),
        "proj_size": size("weight_hr_l0", 0) if projected else 0,
    }


def _bare_norms(cut: Cut, model: nn.Module) -> Iterator[Attribute]:
    """What norms without tensors write down about their widths, from what they are given."""
    bare = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NORMS) and not named_tensors(module)
    }
    for node in cut.channels.reading.network.nodes:
        source = node.args[0] if node.op == "call_function" and node.args else None
        if module_of(node) not in bare or not isinstance(source, fx.Node):
            continue
        name = module_of(node)
        module = bare.pop(name)  # its first operator reads what the module is given
        if isinstance(cut.channels.reading.layouts[source], Layout):
            for attribute, after in _bare_widths(module, cut.shape(source)).items():
                before = getattr(module, attribute)
                before = tuple(before) if isinstance(before, list | tuple) else before
                if before != after:
                    yield Attribute(name, attribute, before, after)


def _bare_widths(module: nn.Module, shape: Sequence[int]) -> dict[str, int | tuple[int, ...]]:
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return {"num_features": shape[1 if len(shape) > 1 else 0]}
    if isinstance(module, nn.GroupNorm):
        each = module.num_groups == module.num_channels
        return {"num_channels": shape[1], **({"num_groups": shape[1]} if each else {})}
    assert isinstance(module, nn.LayerNorm | nn.RMSNorm)
    return {"normalized_shape": tuple(shape[-len(module.normalized_shape) :])}

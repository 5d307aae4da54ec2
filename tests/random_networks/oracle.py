"""The network whose removed channels are zero, made from nothing but the indices in a plan."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bequest.surgery.operation import Surgery, TensorCut


def masked(dense: nn.Module, surgery: Surgery) -> nn.Module:
    """A copy of the dense network with zeros wherever the surgery takes something out.

    What writes a channel that leaves writes zero, and what reads it multiplies by zero, so that it
    says nothing whatever an activation between the two makes of a zero. It knows neither operators
    nor groups: where the indices of a reader aren't those of the writer, or something reads a
    channel without weights of its own, this network computes something else than the pruned one.
    """
    model = copy.deepcopy(dense)
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    with torch.no_grad():
        for cut in surgery.cuts:
            tensors[cut.tensor][~_kept(tensors[cut.tensor], cut)] = 0
    return model


def _kept(tensor: Tensor, cut: TensorCut) -> Tensor:
    """True for the elements that stay."""
    kept = torch.zeros(tensor.shape, dtype=torch.bool)
    each = len(cut.keep) // cut.blocks
    for block, rows in enumerate(kept.chunk(cut.blocks)):  # views of consecutive rows
        stays = list(cut.keep[block * each : (block + 1) * each])
        rows.index_fill_(cut.dim, torch.tensor(stays), True)
    return kept

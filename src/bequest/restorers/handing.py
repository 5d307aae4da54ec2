"""Hands removed channels on: changes consumers' weights so that kept channels carry them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bequest.execution.precision import rounded
from bequest.graph.chains import Bound, Feed
from bequest.graph.recurrence import is_recurrent
from bequest.graph.trace import named_tensors
from bequest.surgery.operation import Surgery

HANDED_ON = "channels were handed on"


@dataclass(frozen=True)
class Hand:
    """What the removed channels (r) leave to the kept ones (p), in numbers.

    Attributes:
        kept: positions in the group, int64 (p,).
        removed: positions in the group, int64 (r,).
        matrix: float64 (r, p).
        offset: float64 (r,), or None.
        gain: float64 (p,), factor on what consumers read of kept channels, or None.
    """

    kept: Tensor
    removed: Tensor
    matrix: Tensor
    offset: Tensor | None
    gain: Tensor | None


@dataclass(frozen=True)
class Gain:
    """What a consumer's bias gains: float64 (o,), indexed like dimension ``dim`` of its weight.

    ``bias`` is its name where the layer has several, as recurrent ones have.
    """

    layer: str
    weight: str
    dim: int
    values: Tensor
    bias: str | None = None


def hand_on(bound: Bound, hand: Hand, tensors: Mapping[str, Tensor]) -> list[Gain]:
    """W'[o,k] = gain_k·W[o,k] + Σ_j W[o,j]·S[j,k] at every kernel position.

    Args:
        bound: the unit and where its consumers hold it; its numbers are the dense ones.
        hand: the delivery.
        tensors: the tensors of the copy that is pruned, still in dense shapes. They get new
            memory; what they had may be that of another model.

    Returns:
        For each consumer what its bias gains where the hand has an offset:
        Σ_j c_j·Σ_positions W[o,j].

    Raises:
        ModelError: what a weight becomes is too large for its type.
    """
    gains: list[Gain] = []
    for feed, consumer in zip(bound.feeds, bound.unit.consumers, strict=True):
        name = feed.read.weight
        assert name is not None
        weight = tensors[name]
        weight.data = weight.data.clone()
        offsets = []
        for outputs, dense in consumer.slices():
            removed, kept = dense[:, hand.removed], dense[:, hand.kept]
            changed = torch.einsum("orq,rp->opq", removed, hand.matrix)
            changed += kept if hand.gain is None else kept * hand.gain[:, None]
            _write(name, weight, outputs, feed, hand.kept, changed)
            if hand.offset is not None and bool(hand.offset.any()):
                offsets.append(torch.einsum("orq,r->o", removed, hand.offset))
        if offsets:
            bias = feed.read.bias if is_recurrent(feed.read.node) else None
            share = torch.cat(offsets) / feed.read.spread
            gains.append(Gain(consumer.name, name, 1 - feed.read.dim, share, bias))
    return gains


def without_bias(model: nn.Module, gains: Iterable[Gain]) -> tuple[str, ...]:
    """The layers that need a bias and have none."""
    layers = dict.fromkeys(gain.layer for gain in gains if gain.bias is None)
    return tuple(layer for layer in layers if model.get_submodule(layer).bias is None)


def raise_biases(model: nn.Module, surgery: Surgery, gains: Iterable[Gain]) -> None:
    """Adds what biases gain, after the surgery, in the rows that it has left.

    Raises:
        ModelError: a bias becomes too large for its type.
    """
    rows = {(cut.tensor, cut.dim): cut.keep for cut in surgery.cuts if cut.blocks == 1}
    tensors = named_tensors(model)
    for gain in gains:
        name = gain.bias or f"{gain.layer}.bias"
        bias = tensors[name]
        kept = rows.get((gain.weight, gain.dim))
        values = gain.values if kept is None else gain.values[list(kept)]
        raised = bias.detach().double() + values
        bias.detach().copy_(rounded(name, raised, bias.dtype, HANDED_ON))


def _write(
    name: str, weight: Tensor, outputs: slice, feed: Feed, kept: Tensor, values: Tensor
) -> None:
    """Puts values (o, p, positions) of some outputs back to the columns of the kept channels."""
    moved = weight.data.movedim(feed.read.dim, 0)[:, outputs]
    columns = torch.from_numpy(feed.columns).to(weight.device)[kept]
    o, p, positions = values.shape
    t = columns.shape[1]
    by_column = values.reshape(o, p, t, positions // t).permute(1, 2, 0, 3)
    new = rounded(name, by_column.reshape(-1, *moved.shape[1:]), weight.dtype, HANDED_ON)
    moved[columns.flatten()] = new

"""The pruned network in the shapes of the dense one, so that values can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, fx

from bequest.graph.chains import Bound
from bequest.graph.groups import Channels
from bequest.robust.merging import Layer
from bequest.surgery.masked import cuts_of, put_back
from bequest.surgery.operation import Surgery

Tensors = Mapping[str, Tensor]


def dense_shaped(dense: Tensors, pruned: Tensors, surgery: Surgery) -> dict[str, Tensor]:
    """The pruned tensors at their places in dense ones; what left reads and is read as zero.

    Vectors (biases, batch norms) keep the dense values of channels that left, which nobody reads.

    Args:
        dense: float64 tensors of the dense network, with a bias in every layer.
        pruned: tensors of the pruned one; a bias that it hasn't is the dense one.
        surgery: what took the channels away, biases included.
    """
    cuts = cuts_of(surgery)
    result = {}
    for name, tensor in dense.items():
        if name not in pruned or not tensor.is_floating_point():
            result[name] = tensor
            continue
        value = pruned[name].detach().to(tensor.dtype)
        if name in cuts:
            whole = tensor if tensor.ndim < 2 else torch.zeros_like(tensor)
            value = put_back(whole, value, cuts[name])
        result[name] = value
    return result


def as_replaced(
    channels: Channels, layers: Sequence[Layer], dense: Tensors, current: Tensors
) -> dict[str, Tensor]:
    """Merged channels written as copies of those that they merged into.

    That W_next[a] += W_next[b] is the same as giving b the filter, bias and norm of a. What
    rounding did to the sums stays with the columns of a.

    Args:
        channels: the network's groups.
        layers: the layers whose pairs merged by summing.
        dense: the dense tensors.
        current: :func:`dense_shaped` of the network as it is.
    """
    result = {name: tensor.clone() for name, tensor in current.items()}
    merged = [layer for layer in layers if layer.merges and layer.removed]
    for layer in merged:
        _give_back(layer, layer.bound, dense, result)
    for layer in merged:
        gone = np.flatnonzero(~layer.alive)
        for name, dim in _vectors(channels, layer):
            rows = result[name].movedim(dim, 0)
            rows[gone] = rows[layer.heir[gone]]
    return result


def _give_back(layer: Layer, bound: Bound, dense: Tensors, result: dict[str, Tensor]) -> None:
    """Each channel's own columns in place of the sums."""
    gone = np.flatnonzero(~layer.alive)
    for feed in bound.feeds:
        assert feed.read.weight is not None
        own = dense[feed.read.weight].movedim(feed.read.dim, 0)
        columns = result[feed.read.weight].movedim(feed.read.dim, 0)
        leaving = torch.from_numpy(feed.columns[gone]).flatten()
        heirs = torch.from_numpy(feed.columns[layer.heir[gone]]).flatten()
        columns.index_add_(0, heirs.to(own.device), own[leaving], alpha=-1)
        columns[leaving] = own[leaving]


def _vectors(channels: Channels, layer: Layer) -> list[tuple[str, int]]:
    """What belongs to each channel of the producer: (tensor, dimension)."""
    names = channels.reading.network.tensors
    write = layer.producer
    assert write.weight is not None
    found = [(write.weight, write.dim)]
    held: list[fx.Node | None] = list(write.node.args[2:3])  # type: ignore[arg-type]
    for user in write.node.users:
        if channels.reading.roles.get(user) == "norm":
            held.extend(user.args[1:5])  # type: ignore[arg-type]
    found.extend((names[node.name], 0) for node in held if isinstance(node, fx.Node))
    return found

"""The mean and variance that batch norms use in a walk: the stored ones, or those of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from bequest.calibration.stream import Adapt, Stream
from bequest.graph.ledger import Layout
from bequest.graph.trace import module_of
from bequest.surgery.cut import Cut

Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel."""

ROUNDING = 1e-10
"""A variance of this share of the squared mean is none."""


class BatchNorms:
    """What the batch norms of both streams normalise with: numbers of the dense stream.

    Args:
        cut: who leaves.
        dense: the dense stream.
        weights: layer's operator → its weight.

    Attributes:
        self_calibrate: takes the moments over all inputs in place of the stored ones.
        constant: layer → how many of its outputs, of those a batch norm was calibrated on, were
            the same for all inputs and places.
    """

    def __init__(self, cut: Cut, dense: Stream, weights: Mapping[fx.Node, str]) -> None:
        self.self_calibrate = False
        self.constant: dict[str, int] = {}
        self._cut, self._dense, self._weights = cut, dense, weights
        self._reading = cut.channels.reading
        self._moments: dict[fx.Node, Moments] = {}
        self.adapts: dict[fx.Node, Adapt] = {}

    def adapt(self, node: fx.Node) -> Adapt:
        """Puts mean and variance into the arguments of a batch norm; leaves others as they are."""
        self.adapts[node] = self._adapt(node)
        return self.adapts[node]

    def _adapt(self, node: fx.Node) -> Adapt:
        if self._reading.roles.get(node) != "norm":
            return list
        data, names = node.args[0], self._reading.network.tensors
        assert isinstance(data, fx.Node)
        held: Any = node.args[3:5]
        mean, var = (self._dense.tensors[names[one.name]] for one in held)
        if self.self_calibrate:
            mean, var = self._moments_of(data)
            flat = int((var <= ROUNDING * mean.square()).sum())
            if flat:
                before = self._weights.get(data, module_of(node))
                self.constant[before.removesuffix(".weight")] = flat

        def replace(args: list[Tensor]) -> list[Tensor]:
            same = len(mean) == args[0].shape[1]
            args[3:5] = [one if same else self._kept(data, one) for one in (mean, var)]
            return args

        return replace

    def variance(self, fed: fx.Node, stored: Tensor) -> Tensor:
        """The variance of what an operator feeds to a batch norm, of the channels that stay."""
        return self._kept(fed, self._moments_of(fed)[1]) if self.self_calibrate else stored

    def forget(self, node: fx.Node) -> None:
        """Lets the moments of a value go."""
        self._moments.pop(node, None)

    def _moments_of(self, node: fx.Node) -> Moments:
        if node not in self._moments:
            self._moments[node] = channel_moments(self._dense.values[node])
        return self._moments[node]

    def _kept(self, node: fx.Node, values: Tensor) -> Tensor:
        """Of numbers per channel of ``node``, those of the channels that stay."""
        layout = self._reading.layouts[node]
        assert isinstance(layout, Layout)
        labels = layout.dims[1]
        return values if labels is None else values[self._cut.kept(labels).to(values.device)]


def channel_moments(chunks: Sequence[Tensor]) -> Moments:
    """Mean and variance (biased) of each channel, dimension 1, over all chunks; both (n,).

    Each chunk is looked at once: its own moments are joined with those of the others, in float64
    (Chan, Golub & LeVeque, 1983).
    """
    counts, means, squares = [], [], []
    for chunk in chunks:
        dims = [d for d in range(chunk.ndim) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(chunk.ndim)]
        mean = chunk.mean(dims)
        means.append(mean.double())
        squares.append((chunk - mean.view(shape)).square_().sum(dims).double())
        counts.append(chunk.numel() // chunk.shape[1])
        dtype = chunk.dtype
    weights = torch.tensor(counts, dtype=torch.float64, device=means[0].device)[:, None]
    each, total = torch.stack(means), weights.sum()
    centre = (weights * each).sum(0) / total
    spread = torch.stack(squares).sum(0) + (weights * (each - centre).square()).sum(0)
    return centre.to(dtype), (spread / total).to(dtype)

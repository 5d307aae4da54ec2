"""How much each group loses so that the whole network meets a budget at the least predicted error.

Group g without its k least channels is predicted to bring the error L_g(k) (relative, from the Gram
of what the layers behind it see; :class:`bequest.criteria.OBS`) and to save k·s_g, s_g the share of
the network's cost that one of its channels carries. For a price λ each group takes the k that
minimises L_g(k) − λ·s_g·k: the Lagrangian form of the cheapest way to a budget. λ is bisected; the
last step to the budget goes group by group, then channel by channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bequest.errors import UsageError
from bequest.graph.geometry import LAYERS, arguments, geometry_of
from bequest.graph.groups import Channels, Group
from bequest.graph.products import parameter_of
from bequest.graph.trace import operator_of
from bequest.selection.widths import Bundle, Choice

Counts = NDArray[np.int64]
"""How many channels each group loses; those of a bundle equally many."""


class Part(NamedTuple):
    """What a channel carries of a network, as shares of all of it.

    Attributes:
        params: of its parameters.
        macs: of its multiply-accumulates.
    """

    params: float
    macs: float


def mean_part(part: Part) -> float:
    """Parameters and multiply-accumulates count alike."""
    return (part.params + part.macs) / 2


class Allocation:
    """The trade of error against cost for the groups of one network.

    Args:
        choices: groups with their scores and predicted losses.
        channels: the network's groups.
        model: the dense network; only the sizes of its parameters are read.
        saved: what of a channel's part counts.
        bundles: choices that lose equally many; None = each loses its own number.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        channels: Channels,
        model: nn.Module,
        saved: Callable[[Part], float],
        bundles: Sequence[Bundle] | None = None,
    ) -> None:
        self.choices = choices
        self._bundles = bundles or [Bundle((number,)) for number in range(len(choices))]
        first = [choices[bundle.members[0]].group for bundle in self._bundles]
        self.most: Counts = np.array([group.free - 1 for group in first])
        curves = [_curve(choice) for choice in choices]
        self._losses = [
            np.sum([curves[member] for member in bundle.members], axis=0)
            for bundle in self._bundles
        ]
        sizes = {name: value.numel() for name, value in model.named_parameters()}
        uses = _uses(channels)
        prices = {name: (size, size * uses.get(name, 0)) for name, size in sizes.items()}
        totals = np.array(list(prices.values()), float).sum(0).clip(min=1)
        parts = np.array([_savings(channels, choice.group, prices) for choice in choices]) / totals
        each = np.array([saved(Part(*map(float, part))) for part in parts])
        self._saved = np.array([each[list(bundle.members)].sum() for bundle in self._bundles])

    def at(self, price: float) -> Counts:
        """How many channels each group of a bundle loses at a price λ; grows with it."""
        pairs = zip(self._losses, self._saved, strict=True)
        return np.array([np.argmin(loss - price * s * np.arange(len(loss))) for loss, s in pairs])

    def asked(self, counts: Counts) -> list[Choice]:
        """The choices with the ratios that these counts mean."""
        asked = list(self.choices)
        for bundle, lost in zip(self._bundles, counts, strict=True):
            for member in bundle.members:
                one = self.choices[member]
                asked[member] = replace(one, ratio=bundle.borne(int(lost)) / one.group.free)
        return asked

    def prices(self) -> tuple[float, float]:
        """A price at which next to nothing leaves, and one at which everything does."""
        pairs = zip(self._losses, self._saved, strict=True)
        steps = np.concatenate([np.diff(loss) / max(saved, 1e-12) for loss, saved in pairs])
        positive = steps[steps > 0]
        if not len(positive):
            return 1e-9, 1.0
        return float(positive.min()) * 0.1, float(positive.max()) * 1e3


def within_budget(
    allocation: Allocation, cost: Callable[[Sequence[Choice]], float], budget: float
) -> list[Choice]:
    """The least predicted error at which the network costs at most ``budget``.

    Args:
        allocation: the trade.
        cost: of the network that choices leave, as a share of the dense one's.
        budget: the share that may stay.

    Raises:
        UsageError: it can't be reached.
    """
    least = cost(allocation.asked(allocation.most))
    if least > budget:
        raise UsageError(
            f"target: expected a share of at least {least:.3f}, found {budget:g}: that much stays "
            "when every group that can be pruned keeps a single channel; groups='all' may go "
            "further"
        )
    low, high = allocation.prices()
    over, under = allocation.at(low), allocation.most  # what carries nothing leaves at any price
    for _ in range(24):
        middle = float(np.sqrt(low * high))
        counts = allocation.at(middle)
        if cost(allocation.asked(counts)) > budget:
            low, over = middle, counts
        else:
            high, under = middle, counts
        if np.abs(under - over).sum() <= len(under) or high / low < 1 + 1e-6:
            break
    return allocation.asked(_between(over, under, lambda c: cost(allocation.asked(c)) <= budget))


def largest(
    allocation: Allocation, passes: Callable[[Sequence[Choice]], bool], steps: int = 7
) -> list[Choice]:
    """The most that can be pruned while ``passes`` holds, by bisecting the price."""
    low, high = allocation.prices()
    best: list[Choice] = allocation.asked(np.zeros_like(allocation.most))
    for _ in range(steps):
        middle = float(np.sqrt(low * high))
        asked = allocation.asked(allocation.at(middle))
        if passes(asked):
            low, best = middle, asked
        else:
            high = middle
    return best


def _between(over: Counts, under: Counts, fits: Callable[[Counts], bool]) -> Counts:
    """The first on the way from ``over`` to ``under``, channel by channel, that fits.

    More channels leave with every step, so that it can be bisected.
    """
    gaps = np.maximum(under - over, 0)
    ends = np.cumsum(gaps)
    low, high = 0, int(ends[-1])

    def at(steps: int) -> Counts:
        taken: Counts = np.clip(steps - (ends - gaps), 0, gaps)
        return over + taken

    while low < high:
        middle = (low + high) // 2
        if fits(at(middle)):
            high = middle
        else:
            low = middle + 1
    return at(high)


def _curve(choice: Choice) -> NDArray[np.float64]:
    """Predicted error after 0, 1, ..., free − 1 channels have left."""
    assert choice.losses is not None
    return np.concatenate([[0.0], choice.losses[: choice.group.free - 1]])


def _savings(
    channels: Channels, group: Group, prices: Mapping[str, tuple[int, int]]
) -> NDArray[np.float64]:
    """Parameters and multiply-accumulates per channel of a group, all else being dense; (2,)."""
    mine = np.isin(channels.channel_of, group.channels)
    saved = np.zeros(2)
    for (tensor, _), labels in channels.reading.ledger.slots.items():
        saved += float(mine[labels].mean()) * np.array(prices.get(tensor, (0, 0)))
    return saved / group.size


def _uses(channels: Channels) -> dict[str, int]:
    """Weight → how often each of its elements is multiplied in one pass."""
    names = channels.reading.network.tensors
    uses: dict[str, int] = {}
    for node in channels.reading.network.nodes:
        if node.op != "call_function" or operator_of(node) not in LAYERS:
            continue
        given, geometry = arguments(node), geometry_of(node)
        tensor = names.get(parameter_of(given["weight"])[0].name)
        if tensor is None:
            continue
        # Of a transposed convolution every input is multiplied, not every output.
        transposed = geometry.transposed and not geometry.linear
        value = (given["input"] if transposed else node).meta["val"]
        features = value.shape[-1 if geometry.linear else 1]
        uses[tensor] = uses.get(tensor, 0) + value.numel() // features
    return uses

"""Refines regions behind the closed form: what one matrix at a time cannot find.

Where a walk has refitted a layer that reads something else than in the dense network, the layers
that wrote what it reads, the norms between and the layer itself
(:class:`~bequest.calibration.regions.Region`) are moved together, by Adam on

    L = Σ ‖s ∘ (out − wanted)‖² / Σ ‖s ∘ (wanted − mean)‖²,

out what the region makes of the pruned stream, wanted what the dense network writes there and what
the branch that it is added to lacks (:mod:`~bequest.restorers.wanted`), s the scale γ/σ of the
batch norm between. Nothing outside of the region is run or differentiated. A part of the inputs is
not learnt from: of the steps on the way those weights are taken that are best on it, and the closed
form stays where none is better. What follows in the walk is refitted to what refined layers write.

Steps grow with the square of the L that the closed form leaves, up to a half: where that is little,
little is moved, or made-up inputs would be fitted in ways in which real ones differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor, fx

from bequest.calibration.layers import Call, Layer
from bequest.calibration.regions import Region
from bequest.calibration.walk import Walk
from bequest.restorers.descent import Descent, batches
from bequest.restorers.former import Former
from bequest.restorers.wanted import scale_of, wanted

RATE = 0.05
"""First step of Adam, relative to the root mean square of each tensor, where the closed form leaves
an L of a half or more, and (2L)² times that below. Falls to 0 by a cosine."""

MENDED = 1e-8
"""L up to which there is nothing to mend."""

UNSEEN = 0.125
"""Share of the inputs that no step learns from; at least one chunk."""

LOOKS = 8
"""How often the inputs that no step learns from are looked at."""


@dataclass(frozen=True)
class Refined:
    """What was gained: relative squared errors on the inputs that no step learnt from."""

    before: float
    after: float

    @property
    def in_vain(self) -> bool:
        """Whether the closed form stays, though it leaves something to mend."""
        return not self.after < self.before


class Refine:
    """Refines each region that a walk meets.

    Args:
        walk: over both networks; the closed form of a layer is there when it is met.
        steps: of Adam, for each region.
        seed: of the draws of batches.
        former: tensors that were changed before; those that change here are noted, too.

    Attributes:
        regions: the layer's operator → its region; the walk holds what they read.
        gains: layer → what was gained.
    """

    def __init__(self, walk: Walk, steps: int, seed: int, former: Former) -> None:
        self.walk, self.steps, self.seed, self.former = walk, steps, seed, former
        self.gains: dict[str, Refined] = {}
        self.regions = _regions(walk) if steps else {}

    def __call__(self, layer: Layer) -> None:
        """Moves the weights of the layer's region, if it has one of its own."""
        call = layer.calls[0]
        region = self.regions.get(call.node)
        if region is None or not layer.whole:
            return
        start = {name: self._tensor(name).clone() for name in self.walk.changeable(region)}
        task = _Task(self.walk, call, region)
        before = task.unseen_loss(start)
        if not start or before <= MENDED:
            return
        found, gain = self._best(task, start, before)
        self.gains[layer.name] = gain
        if gain.in_vain:
            return
        for name, value in found.items():
            self.former.note(name)
            self.walk.write(name, value, "refinement")
        self.walk.rerun(region)

    def _tensor(self, name: str) -> Tensor:
        tensor = self.walk.tensor(name)
        assert tensor is not None
        return tensor.detach()

    def _best(
        self, task: _Task, start: Mapping[str, Tensor], before: float
    ) -> tuple[Mapping[str, Tensor], Refined]:
        """The best weights on the way, judged by inputs that no step learns from."""
        descent = Descent(start, task.loss, RATE * min(1.0, 2 * before) ** 2, self.steps)
        best, found = before, start
        drawn = batches(task.seen, len(task.targets[0]), self.seed)
        for step in range(self.steps):
            descent.step(next(drawn))
            if (step + 1) % max(1, self.steps // LOOKS) == 0:
                error = task.unseen_loss(descent.now)
                if error < best:
                    best, found = error, descent.found()
        return found, Refined(before, best)


def _regions(walk: Walk) -> dict[fx.Node, Region]:
    """The layer's operator → its region."""
    found = {}
    for node in walk.layers():
        region = Region.behind(walk.cut, node)
        if region is not None:
            found[node] = region
    return found


class _Task:
    """What a region is to write, over the chunks of a walk."""

    def __init__(self, walk: Walk, call: Call, region: Region) -> None:
        self.walk, self.region = walk, region
        self.targets = wanted(walk, call)
        self.scale = _scale(walk, call)
        count = len(self.targets)
        self.unseen = list(range(count - max(1, round(UNSEEN * count)), count))
        self.seen = list(range(self.unseen[0])) or self.unseen
        self.size = self._spread()

    def loss(self, tensors: Mapping[str, Tensor], number: int) -> Tensor:
        """Of a chunk, relative to what the targets vary by."""
        target, values = self.targets[number], self.walk.outside(self.region, number)
        out = self.walk.replay(self.region, values, tensors)[self.region.nodes[-1]]
        return self._square(out - target) / (len(target) * self.size)

    @torch.no_grad()
    def unseen_loss(self, tensors: Mapping[str, Tensor]) -> float:
        """Over the inputs that no step learns from."""
        loss = float(torch.stack([self.loss(tensors, i) for i in self.unseen]).mean())
        return loss if isfinite(loss) else inf

    def _square(self, values: Tensor) -> Tensor:
        return (values if self.scale is None else values * self.scale).square().sum()

    def _spread(self) -> float:
        """Σ ‖s ∘ (wanted − mean)‖² of one input, the mean that over inputs."""
        mean = torch.stack([target.mean(0) for target in self.targets]).mean(0)
        total = sum(float(self._square(target - mean)) for target in self.targets)
        return max(total / sum(map(len, self.targets)), 1e-30)


def _scale(walk: Walk, call: Call) -> Tensor | None:
    """γ/σ of a batch norm behind the call, shaped like its output; None where there is none."""
    users = list(call.node.users)
    if len(users) != 1 or walk.reading.roles.get(users[0]) != "norm":
        return None
    return scale_of(walk, users[0], call)

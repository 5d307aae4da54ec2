"""Adversarial distillation: what is pruned answers like the dense network beside the inputs, too.

Layers that are fitted one by one agree with the dense network on inputs and have slopes of their
own around them: whoever follows the pruned network's gradient finds where. The dense network's
gradient doesn't tell, so no choice of inputs beforehand does. Behind the walk all weights that it
has changed are moved together, by Adam on

    L = (Σ ‖f′(x) − f(x)‖² + Σ ‖f′(x + d) − f(x + d)‖²) / Σ ‖f(x) − mean‖²,

f and f′ the outputs of the dense and of the pruned network, d = −r·σ·sign(∇ₓ m), σ the standard
deviation of the inputs, m by what the largest output leads before the next (the margin of a
classifier). So d is a step of an attacker on the network as it is (FGSM); no labels are looked at.
No part of the inputs is kept for an early stop: of few inputs that are made up, those that are not
learnt from tell nothing of how far real ones can be changed. What is learnt from are mixtures, each
input moved towards another by up to half of the way: weights that fit a few inputs by heart don't
fit what lies between them.

Goldblum, Fowl, Feizi & Goldstein, "Adversarially robust distillation" (AAAI 2020), ask for f(x) in
place of f(x + d): the network becomes flatter than the dense one, which costs accuracy. Mixtures
are those of Zhang, Cisse, Dauphin & Lopez-Paz, "mixup" (ICLR 2018), with the dense network's answer
to them in place of mixed labels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf

import torch
from torch import Tensor

from bequest.calibration.moments import ROUNDINGS
from bequest.calibration.samples import Samples
from bequest.calibration.walk import Walk
from bequest.errors import UsageError
from bequest.execution.progress import tracked
from bequest.execution.randomness import stream
from bequest.restorers.descent import Descent, batches
from bequest.restorers.refine import Refined

RATE = 0.001
"""First step of Adam, relative to the root mean square of each tensor, where the walk leaves an L
of a sixth or more; less in proportion. Falls to 0 by a cosine."""

STEPS = 100
"""At most; where inputs are large, those that can be afforded."""

PASSES = 9
"""What a step takes, in forward passes of the network: three of them, and three backwards."""


class Distillation:
    """Moves weights of a pruned network so that it follows the dense one around inputs.

    Args:
        walk: over both networks; it has run over the samples.
        samples: the inputs.
        names: of tensors of the pruned network; those that are parameters change.
        radius: how far inputs are moved, in their standard deviations.
        seed: of the draws.
    """

    def __init__(
        self, walk: Walk, samples: Samples, names: Collection[str], radius: float, seed: int
    ) -> None:
        self.walk, self.samples = walk, samples
        held = {name: walk.tensor(name) for name in sorted(names) if walk.is_parameter(name)}
        self.tensors = {name: one.detach() for name, one in held.items() if one is not None}
        self.reach = reach(samples, radius)
        self.batches = batches(range(len(samples.chunks)), samples.chunk_size, seed)
        self.signs, self.partners = stream(seed), stream(seed)
        self.spread = self._spread()

    def run(self, steps: int, *, show: bool = False) -> Refined:
        """Moves the tensors, unless L is no lower then.

        Args:
            steps: of Adam.
            show: a progress bar on a terminal.
        """
        before = self._mean_loss(self.tensors)
        descent = Descent(self.tensors, self._mixed_loss, RATE * min(1.0, 6 * before), steps)
        for _ in tracked(range(steps), "distilling", range(steps), show):
            descent.step(next(self.batches))
        found = descent.found()
        after = self._mean_loss(found)
        if not after < before:
            return Refined(before, before)
        self.tensors = found
        return Refined(before, after)

    def loss(self, tensors: Mapping[str, Tensor], number: int) -> Tensor:
        """On a chunk of inputs and beside them, relative to what the outputs vary by."""
        return self._loss(tensors, self.samples.chunks[number])

    def _mixed_loss(self, tensors: Mapping[str, Tensor], number: int) -> Tensor:
        """The same on mixtures of the chunk with another."""
        return self._loss(tensors, self._mixed(self.samples.chunks[number]))

    def _mixed(self, here: Sequence[Tensor]) -> list[Tensor]:
        """Each input moved by less than half of the way towards one of another chunk."""
        count, size = len(self.samples.chunks), self.samples.chunk_size
        draws = self.partners
        other = self.samples.chunks[int(torch.randint(count, (), generator=draws, device="cpu"))]
        partners = torch.randperm(size, generator=draws, device="cpu")
        shares = torch.rand(size, generator=draws, device="cpu") / 2

        def towards(x: Tensor, y: Tensor) -> Tensor:
            share = shares.to(x).view(-1, *[1] * (x.ndim - 1))
            return torch.lerp(x, y[partners.to(y.device)], share)

        pairs = zip(here, other, self.reach, strict=True)
        return [towards(x, y) if r else x for x, y, r in pairs]

    @torch.enable_grad()
    def _loss(self, tensors: Mapping[str, Tensor], here: Sequence[Tensor]) -> Tensor:
        pairs = zip(here, self.reach, strict=True)
        moving = [x.detach().clone().requires_grad_() if r else x for x, r in pairs]
        outputs = self.walk.outputs(moving, tensors, dense=False)
        beside = self._beside(moving, outputs)
        moved = self.walk.outputs(beside, tensors, dense=False)
        return self._distance(outputs, here) + self._distance(moved, beside)

    def _beside(self, moving: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
        """Inputs moved against their gradient of the lead, each by its reach."""
        floats = [x for x in moving if x.requires_grad]
        slopes = torch.autograd.grad(
            self._lead(outputs), floats, retain_graph=True, materialize_grads=True
        )
        moved = iter(slopes)
        return [
            (x - r * next(moved).sign()).detach() if r else x
            for x, r in zip(moving, self.reach, strict=True)
        ]

    def _lead(self, outputs: Sequence[Tensor]) -> Tensor:
        """The margin of a classifier; of other outputs a sum with random signs."""
        if len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] > 1:
            first, second = outputs[0].topk(2, dim=1).values.unbind(1)
            return (first - second).sum()
        signs = [
            torch.randint(2, one.shape, generator=self.signs, device="cpu").to(one) * 2 - 1
            for one in outputs
        ]
        pairs = zip(outputs, signs, strict=True)
        return torch.stack([(one * sign).sum() for one, sign in pairs]).sum()

    def _distance(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """From what the dense network makes of inputs, the mean over its outputs that count."""
        with torch.no_grad():
            wanted = self.walk.outputs(inputs, dense=True)
        pairs = zip(outputs, wanted, self.spread, strict=True)
        parts = [_apart(one, other).square().sum() / size for one, other, size in pairs]
        return torch.stack(parts).sum() / max(1, sum(size < inf for size in self.spread))

    @torch.no_grad()
    def _spread(self) -> list[float]:
        """Of each output Σ ‖f(x) − mean‖² of a chunk, the mean that over inputs.

        Infinite, so that it doesn't count, of an output that varies by rounding alone or not always
        by a number.
        """
        chunks = [self.walk.outputs(chunk, dense=True) for chunk in self.samples.chunks]
        found = []
        for column in zip(*chunks, strict=True):
            mean = torch.stack([one.mean(0) for one in column]).mean(0)
            square = sum(float(_apart(one, mean).double().square().sum()) for one in column)
            size = sum(float(one.double().square().nan_to_num(0, 0, 0).sum()) for one in column)
            varies = square > (ROUNDINGS * torch.finfo(mean.dtype).eps) ** 2 * size
            found.append(square / len(column) if varies else inf)
        return found

    def _mean_loss(self, tensors: Mapping[str, Tensor]) -> float:
        """Over all inputs."""
        count = len(self.samples.chunks)
        return sum(float(self.loss(tensors, number).detach()) for number in range(count)) / count


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """What lies between two values; nothing where both are the same infinity."""
    return torch.where(one == other, 0.0, one - other)


def require_slopes(walk: Walk, samples: Samples, radius: float) -> None:
    """Refuses what can't be distilled, before the walk.

    Raises:
        UsageError: the network reads or returns no real numbers, or these don't follow those.
    """
    pairs = zip(samples.chunks[0], reach(samples, radius), strict=True)
    inputs = [x.detach().clone().requires_grad_() if r else x for x, r in pairs]
    moved = [x for x in inputs if x.requires_grad]
    with torch.enable_grad():
        outputs = walk.outputs(inputs, dense=True)
        if not outputs:
            raise UsageError(
                "regression: neighbourhood is for networks that return real numbers; found one "
                "that returns none: leave neighbourhood out"
            )
        try:
            total = torch.stack([one.sum() for one in outputs]).sum()
            slopes = torch.autograd.grad(total, moved, allow_unused=True)
        except RuntimeError as error:
            raise _no_slopes(" ".join(str(error).split())[:200]) from error
    if not any(one is not None and bool(one.any()) for one in slopes):
        raise _no_slopes("no small change of an input changes any")


def _no_slopes(why: str) -> UsageError:
    return UsageError(
        "regression: neighbourhood needs outputs that can be differentiated by the network's "
        f"inputs: {why}; leave neighbourhood out"
    )


def reach(samples: Samples, radius: float) -> list[float]:
    """How far each input tensor is moved: a share of its standard deviation, or 0.

    Raises:
        UsageError: none can be moved.
    """
    found = []
    for position, column in enumerate(zip(*samples.chunks, strict=True)):
        moves = column[0].is_floating_point() and position not in samples.whole
        found.append(radius * float(torch.stack(column).std()) if moves else 0.0)
    if not any(found):
        raise UsageError(
            "regression: neighbourhood moves inputs that are real numbers, and this network reads "
            "none, or they do not vary: leave neighbourhood out"
        )
    return found

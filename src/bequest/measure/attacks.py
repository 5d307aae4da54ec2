"""Robustness of a classifier against small changes of its inputs that are made to mislead it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bequest.errors import DataError, UnknownNameError, UsageError
from bequest.execution.progress import tracked
from bequest.execution.randomness import SEEDS, stream
from bequest.execution.running import evaluation_mode, on_device, placed, run
from bequest.measure.accuracy import checked_labels, logits_of, pairs

Meaning = Literal["logits", "probabilities"]
Logits = Callable[[Tensor], Tensor]
"""Inputs (B, ...) → logits (B, K), K ≥ 2, differentiable."""


@dataclass(frozen=True)
class Robustness:
    """What :func:`robustness` found.

    Attributes:
        attack: name of the attack.
        count: number of inputs.
        correct: how many are classified correctly, before the attack.
        robust: *robust instances*: how many of these keep their class under attack.
        accuracy: 100·correct/count, in percent.
        robust_accuracy: 100·robust/count, in percent.
    """

    attack: str
    count: int
    correct: int
    robust: int
    accuracy: float
    robust_accuracy: float


def robustness(
    model: nn.Module,
    loader: Iterable[Any],
    attack: str = "fgsm",
    eps: float | Tensor = 0.01,
    *,
    input_range: tuple[float | Tensor, float | Tensor] = (0, 1),
    steps: int = 10,
    top: int = 1,
    output: Meaning = "logits",
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Robustness:
    """Counts the inputs whose class an attack can't change.

    Each input x may become any x′ with |x′ − x| ≤ eps in every entry, within the input range.
    Inputs that are classified wrongly to begin with are not robust instances.

    Args:
        model: gives (B, K), or (B,) or (B, 1) if binary, or an object with ``.logits``; it runs in
            evaluation mode and is as before afterwards.
        loader: gives pairs (inputs, labels); inputs are one floating-point tensor (B, ...).
        attack: "fgsm", "pgd", or "autoattack" with the extra ``robust`` installed.
        eps: in the units of the inputs as the network reads them; a number, or a tensor that
            broadcasts to the inputs (an eps in pixels divided by each channel's std).
        input_range: lowest and highest value of an input, likewise.
        steps: of PGD.
        top: with k > 1 an input counts as correct where its label is among the k largest outputs,
            and as robust where the largest output under attack is one of those k.
        output: what the model gives: "logits", before softmax or sigmoid, or "probabilities",
            behind them.
        seed: of random starts.
        device: where to run; None = where the model is. For another device a copy is made.
        progress: show a bar, if the standard error is a terminal.

    Raises:
        UsageError: an argument is wrong, or the loader gives something else than pairs, or inputs
            on which the model fails.
        DataError: the loader is empty; labels don't fit the outputs; inputs are out of the range.
        MissingExtraError: AutoAttack isn't installed.
        ModelError: the model's output is not (B, K).
    """
    _check(attack, eps, steps, top, output)
    model = on_device(model, device)

    def logits(x: Tensor) -> Tensor:
        return logits_of(run(model, x), probabilities=output == "probabilities")

    count = correct = robust = 0
    with evaluation_mode(model):
        for number, (inputs, labels) in enumerate(
            tracked(pairs(loader), f"attacking ({attack})", loader, progress)
        ):
            x = placed(inputs, model)
            if not isinstance(x, Tensor) or not x.is_floating_point():
                raise UsageError("robustness: expected inputs that are one floating-point tensor")
            space = _Space.around(x, eps, input_range)
            clean = logits(x)
            y = checked_labels(labels, clean).to(clean.device)
            best = clean.topk(min(top, clean.shape[1]), dim=1).indices
            hit = (best == y[:, None]).any(1)
            count, correct = count + len(y), correct + int(hit.sum())
            if hit.any():
                space = space.of(hit)
                found = ATTACKS[attack](logits, space, y[hit], steps, (seed + number) % SEEDS)
                moved = logits(found).argmax(1)
                robust += int((best[hit] == moved[:, None]).any(1).sum())
    if count == 0:
        raise DataError("robustness: expected at least one input, found an empty loader")
    return Robustness(
        attack=attack,
        count=count,
        correct=correct,
        robust=robust,
        accuracy=100 * correct / count,
        robust_accuracy=100 * robust / count,
    )


def _check(attack: str, eps: float | Tensor, steps: int, top: int, output: str) -> None:
    if attack not in ATTACKS:
        raise UnknownNameError("attack", str(attack), ATTACKS)
    size = torch.as_tensor(eps)
    truth = size.dtype == torch.bool
    if truth or size.is_complex() or not (size.isfinite().all() and (size >= 0).all()):
        raise UsageError(f"eps: expected finite numbers ≥ 0, found {eps!r}")
    for name, value in (("steps", steps), ("top", top)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name}: expected a whole number ≥ 1, found {value!r}")
    if output not in ("logits", "probabilities"):
        raise UsageError(f"output: expected 'logits' or 'probabilities', found {output!r}")


@dataclass(frozen=True)
class _Space:
    """Inputs and where each of them may go; all tensors of the inputs' shape."""

    x: Tensor
    eps: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, x: Tensor, eps: Any, input_range: tuple[Any, Any]) -> _Space:
        """Checks that eps and the range fit the inputs, and the inputs the range."""
        try:
            radius, low, high = (
                torch.as_tensor(one, dtype=x.dtype, device=x.device).expand_as(x)
                for one in (eps, *input_range)
            )
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(
                "robustness: expected eps and two ends of input_range that broadcast to inputs of "
                f"shape {tuple(x.shape)}, found {eps!r} and {input_range!r}"
            ) from error
        if not bool((low < high).all()):
            raise UsageError(f"input_range: expected the lower end first, found {input_range!r}")
        slack = 1e-5 * (high - low)
        if bool(((x < low - slack) | (x > high + slack)).any()):
            raise DataError(
                f"robustness: expected inputs within the input range, found {float(x.min()):.4g} "
                f"to {float(x.max()):.4g}; give the range as the network reads its inputs"
            )
        return cls(x, radius, low, high)

    def of(self, chosen: Tensor) -> _Space:
        """Some of the inputs."""
        return _Space(self.x[chosen], self.eps[chosen], self.low[chosen], self.high[chosen])

    def within(self, x: Tensor) -> Tensor:
        """The nearest allowed inputs."""
        x = torch.maximum(torch.minimum(x, self.x + self.eps), self.x - self.eps)
        return torch.maximum(torch.minimum(x, self.high), self.low)


def _gradient(logits: Logits, x: Tensor, labels: Tensor) -> Tensor:
    """Of each input's cross-entropy, with respect to that input."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        loss = cross_entropy(logits(x), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
    return gradient


def fgsm(logits: Logits, space: _Space, labels: Tensor, steps: int, seed: int) -> Tensor:
    """X + eps·sign(∇loss) (Goodfellow, Shlens & Szegedy 2015); steps and seed play no part."""
    return space.within(space.x + space.eps * _gradient(logits, space.x, labels).sign())


def pgd(logits: Logits, space: _Space, labels: Tensor, steps: int, seed: int) -> Tensor:
    """Projected gradient ascent from a random start (Madry et al. 2018), step 2.5·eps/steps.

    An input that any iterate misleads keeps that iterate.
    """
    generator = stream(seed)
    noise = (
        torch.rand(space.x.shape, generator=generator, dtype=torch.float64, device="cpu") * 2 - 1
    )
    x = space.within(space.x + space.eps * noise.to(space.x))
    found = x.clone()
    for _ in range(steps):
        x = space.within(x + 2.5 / steps * space.eps * _gradient(logits, x, labels).sign())
        held = logits(found).argmax(1) == labels
        found[held] = x[held]
    return found


def autoattack(logits: Logits, space: _Space, labels: Tensor, steps: int, seed: int) -> Tensor:
    """The standard ensemble of four attacks (Croce & Hein 2020); it has its own steps.

    Raises:
        MissingExtraError: the package isn't installed.
        UsageError: fewer than four classes, or an eps that isn't one share of the range.
    """
    from bequest.measure.ensemble import run_autoattack

    return run_autoattack(logits, space.x, labels, space.eps, (space.low, space.high), seed)


ATTACKS: dict[str, Callable[[Logits, _Space, Tensor, int, int], Tensor]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "autoattack": autoattack,
}

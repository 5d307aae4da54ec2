"""What the command line adds for robustness: ``prune --strategy`` and ``evaluate --attack``."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text
from torch import Tensor, nn

from bequest import config, robust
from bequest.cli.inputs import InputForm
from bequest.cli.tables import table, titled
from bequest.cli.values import parse_numbers, refuse_beside
from bequest.data import ImageLoader
from bequest.errors import NothingPrunedWarning, UnknownNameError, UsageError
from bequest.measure.attacks import ATTACKS, Robustness, robustness
from bequest.pruning import Pruned, Report
from bequest.report import wording
from bequest.robust import RobustReport, Strategy
from bequest.robust.annealing import Informed
from bequest.selection.ratio import Ratio

_REPLACED = (
    "--effort",
    *("--target", "--sparsity", "--calibrate", "--criterion", "--scope", "--round-to"),
    "--outputs",
)
"""What a strategy decides by itself, or can't follow."""


@dataclass(frozen=True)
class Progressive:
    """The options of ``bequest prune`` that make it prune step by step."""

    strategy: Strategy
    low: float
    high: float
    step: float
    alpha: float

    @classmethod
    def parse(
        cls,
        strategy: str | None,
        input_range: str | None,
        step: float,
        alpha: float,
        groups: str,
        given: frozenset[str],
    ) -> Progressive | None:
        """None without ``--strategy``; ``given`` are the options on the command line.

        Raises:
            UsageError: an unknown strategy, a missing or reversed range, options that don't go
                together.
        """
        if strategy is None:
            for option in ("--input-range", "--step", "--alpha"):
                if option in given:
                    raise UsageError(f"{option} goes with --strategy, e.g. --strategy stochastic")
            return None
        refuse_beside("--strategy", _REPLACED, given)
        chosen = config.resolve("strategy", strategy, Strategy)
        if "--alpha" in given and not isinstance(chosen, Informed):
            raise UsageError(
                f"--alpha: the strategy '{chosen.name}' scores no changes; leave it out"
            )
        if input_range is None:
            raise UsageError(
                "--strategy needs --input-range LOW,HIGH, the lowest and highest pixel value: what "
                "is guaranteed holds for inputs in that range; e.g. --input-range 0,1"
            )
        ends = parse_numbers(input_range, "--input-range", "two numbers such as 0,1")
        if len(ends) != 2 or ends[0] >= ends[1]:
            raise UsageError(
                f"--input-range: expected two numbers, the lower one first, found {input_range!r}"
            )
        if groups != "inner":
            raise UsageError("--strategy prunes inner layers alone; leave --groups out")
        return cls(chosen, *ends, step, alpha)

    def prune(
        self,
        model: nn.Module,
        example: Tensor,
        ratio: Ratio,
        restorer: str,
        seed: int,
        form: InputForm,
    ) -> tuple[Pruned, float]:
        """The pruned network, and the seconds that it took."""
        start = time.perf_counter()
        with warnings.catch_warnings():  # what was not pruned and why is shown
            warnings.simplefilter("ignore", NothingPrunedWarning)
            pruned = robust.prune(
                model,
                example,
                (as_read(self.low, form), as_read(self.high, form)),
                ratio,
                self.step,
                self.strategy,
                self.alpha,
                restorer,
                seed,
                progress=True,
            )
        return pruned, time.perf_counter() - start


def as_read(pixel: float, form: InputForm) -> float | Tensor:
    """A pixel value as the network reads it, (C, 1, 1); the number itself where nothing is said."""
    if form.mean is None or form.std is None:
        return pixel
    mean, std = (torch.tensor(values)[:, None, None] for values in (form.mean, form.std))
    return (pixel - mean) / std


def robust_tables(report: Report) -> list[RenderableType]:
    """What is guaranteed of a progressively pruned network's outputs; nothing for others."""
    if not isinstance(report, RobustReport):
        return []
    lower, upper = (end.flatten().tolist() for end in report.certified_change)
    rows = [
        (str(number), f"{low:+.4g}", f"{high:+.4g}")
        for number, (low, high) in enumerate(zip(lower, upper, strict=True))
    ]
    shown: list[RenderableType] = [
        titled(
            "Certified change of the outputs, pruned minus dense, over the input range",
            table(("output", "at least", "at most"), rows),
        )
    ]
    gaps = (f"no interval rule: {place}" for place in report.unbounded)
    return [*shown, *(Text.from_markup(escape(gap)) for gap in gaps)]


def robust_json(report: Report) -> dict[str, Any]:
    """The same for ``--json``, with the course of the steps."""
    if not isinstance(report, RobustReport):
        return {}
    return {
        "certified_change": [end.tolist() for end in report.certified_change],
        "unbounded": list(report.unbounded),
        "steps": [
            {
                "number": step.number,
                "removed": step.removed,
                "temperature": step.temperature,
                "candidates": len(step.decisions),
                "accepted": sum(decision.accepted for decision in step.decisions),
                "certified_width": step.change,
            }
            for step in report.steps
        ],
    }


@dataclass(frozen=True)
class Attack:
    """The options of ``bequest evaluate`` that make it attack: a name and the sizes, in pixels."""

    name: str
    sizes: tuple[float, ...]

    @classmethod
    def parse(cls, attack: str | None, eps: str, given: frozenset[str]) -> Attack | None:
        """None without ``--attack``; ``given`` are the options on the command line.

        Raises:
            UsageError: an unknown attack, an eps that is no number ≥ 0, or one without an attack.
        """
        if attack is None:
            if "--eps" in given:
                raise UsageError("--eps goes with --attack or --certify, e.g. --attack fgsm")
            return None
        if attack not in ATTACKS:
            raise UnknownNameError("attack", attack, ATTACKS)
        sizes = parse_numbers(eps, "--eps", "numbers ≥ 0 such as 0.01,0.05")
        if min(sizes) < 0:
            raise UsageError(f"--eps: expected numbers ≥ 0, found {eps!r}")
        return cls(attack, sizes)

    def run(
        self, model: nn.Module, images: ImageLoader, form: InputForm
    ) -> dict[float, Robustness]:
        """Eps → what the attack left; pixels lie in 0..1."""
        ends = as_read(0.0, form), as_read(1.0, form)
        return {
            size: robustness(
                model,
                images,
                self.name,
                size * (ends[1] - ends[0]),
                input_range=ends,
                progress=True,
            )
            for size in self.sizes
        }

    def rows(self, found: dict[float, Robustness]) -> list[tuple[str, str]]:
        """For the table: robust instances and their share."""
        return [
            (
                f"robust to {self.name}, eps {size:g}",
                f"{one.robust:,} of {one.correct:,} correct "
                f"({wording.percent(one.robust_accuracy)})",
            )
            for size, one in found.items()
        ]

"""What the command line adds for certificates: ``evaluate --certify``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bequest import robust
from bequest.cli.inputs import InputForm
from bequest.cli.models import Opened, open_model
from bequest.cli.robust import as_read
from bequest.cli.values import parse_numbers
from bequest.data import ImageLoader
from bequest.errors import UsageError
from bequest.execution.progress import tracked
from bequest.graph.trace import named_tensors
from bequest.report import wording


@dataclass(frozen=True)
class Certified:
    """What is proven of all images at one eps.

    Attributes:
        images: how many.
        agreeing: of how many the pruned network provably gives the dense one's class, all over the
            box.
        change: the largest change of an output that is not excluded for an image, mean over images.
        loose: operators that intervals alone pass, by place.
        unbounded: operators behind which nothing is known.
    """

    images: int
    agreeing: int
    change: float
    loose: tuple[str, ...]
    unbounded: tuple[str, ...]


@dataclass(frozen=True)
class Certify:
    """The options of ``bequest evaluate`` that make it certify.

    Attributes:
        sizes: of the boxes around images, in pixels; none where it isn't asked for.
        steps: of descent on every bound.
    """

    sizes: tuple[float, ...]
    steps: int = 0

    @classmethod
    def parse(cls, asked: bool, eps: str, steps: int, model: str, data: object) -> Certify:
        """Checks what goes with it.

        Raises:
            UsageError: MODEL is no folder of a pruned network, there are no images, an eps or the
                number of steps is less than 0, or there are steps of nothing.
        """
        if not asked:
            if steps:
                raise UsageError("--certify-steps goes with --certify")
            return cls(())
        if steps < 0:
            raise UsageError(f"--certify-steps: expected a whole number ≥ 0, found {steps}")
        if not Path(model).is_dir():
            raise UsageError(
                "--certify compares a pruned network with its dense one: expected a folder that "
                "bequest saved as MODEL"
            )
        if data is None:
            raise UsageError("--certify looks around images: give --data")
        sizes = parse_numbers(eps, "--eps", "numbers ≥ 0 such as 0.01,0.05")
        if min(sizes) < 0:
            raise UsageError(f"--eps: expected numbers ≥ 0, found {eps!r}")
        return cls(sizes, steps)

    def weights(self, given: Path | None) -> tuple[Path | None, Path | None]:
        """Of MODEL, and of the dense network of a saved folder, which holds its own."""
        return (None, given) if self.sizes else (given, None)

    def dense(
        self, opened: Opened, base: str | None, weights: Path | None, device: torch.device
    ) -> nn.Module | None:
        """The dense network of a saved folder, as its plan names it; None where nobody asks.

        Raises:
            UsageError: nothing says which network it is, or its weights are missing or random.
            ArtifactError: the weights file is damaged or for another network.
        """
        if not self.sizes:
            return None
        word = base or opened.dense or opened.spec
        if Path(word).is_dir():
            raise UsageError(
                "--certify: the plan doesn't name the dense network; give it with --model, and its "
                "weights with --weights"
            )
        model = open_model(word, weights=weights, device=device).model
        if weights is None:
            again = named_tensors(open_model(word, device=device).model)
            if not all(torch.equal(one, again[name]) for name, one in named_tensors(model).items()):
                raise UsageError(
                    f"--certify: {word} makes other weights whenever it is called, so they are "
                    "random; give those of the dense network with --weights"
                )
        return model

    def run(
        self, opened: Opened, dense: nn.Module | None, images: ImageLoader | None, form: InputForm
    ) -> dict[float, Certified]:
        """Eps → what is proven; pixels lie in 0..1."""
        if dense is None or images is None:
            return {}
        ends = as_read(0.0, form), as_read(1.0, form)
        return {size: self._at(size, dense, opened.model, images, ends) for size in self.sizes}

    def _at(
        self, size: float, dense: nn.Module, pruned: nn.Module, images: ImageLoader, ends: Any
    ) -> Certified:
        reach = min(size, 1.0)  # from one end of the range to the other
        parts = [
            robust.certify(dense, pruned, x, reach * (ends[1] - ends[0]), ends, self.steps)
            for x, _ in tracked(images, f"certifying (eps {size:g})", images, True)
        ]
        agrees = [one.agrees for one in parts if one.agrees is not None]
        change = torch.cat([torch.maximum(-one.lower, one.upper).flatten(1) for one in parts])
        return Certified(
            images=len(change),
            agreeing=sum(int(one.sum()) for one in agrees),
            change=float(change.amax(1).mean()),
            loose=tuple(dict.fromkeys(place for one in parts for place in one.loose)),
            unbounded=tuple(dict.fromkeys(place for one in parts for place in one.unbounded)),
        )

    def rows(self, found: dict[float, Certified]) -> list[tuple[str, str]]:
        """For the table."""
        rows = []
        for size, one in found.items():
            share = wording.percent(100 * one.agreeing / one.images)
            rows += [
                (
                    f"certified agreement, eps {size:g}",
                    f"{one.agreeing:,} of {one.images:,} ({share})",
                ),
                (f"certified change, eps {size:g}", f"at most {one.change:.4g} (mean over images)"),
            ]
        notes = {
            "by intervals alone": [place for one in found.values() for place in one.loose],
            "no bound is known behind": [p for one in found.values() for p in one.unbounded],
        }
        rows += [(name, ", ".join(dict.fromkeys(held))) for name, held in notes.items() if held]
        return rows

"""The steps that commands share: check, prune, measure, save."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

import bequest
from bequest.artifact import save
from bequest.artifact.pretrained import require_pretrained
from bequest.calibration.inputs import Source
from bequest.calibration.inputs.asked import samples_from
from bequest.calibration.samples import Samples
from bequest.call import Call
from bequest.cli.inputs import InputForm
from bequest.cli.measures import Measures
from bequest.errors import InputWarning, NothingPrunedWarning, UsageError
from bequest.graph.trace import require_runnable
from bequest.measure import Latency, cost
from bequest.measure.latency import latencies
from bequest.pruning import Pruned
from bequest.report import Measured
from bequest.selection.policy import Kinds
from bequest.selection.ratio import Ratio
from bequest.selection.widths import Scope


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`bequest.prune` that stay the same over a comparison."""

    groups: str
    scope: str
    round_to: int
    seed: int
    uniform: bool = False
    effort: str | None = None
    outputs: tuple[str, ...] | None = None

    def check(
        self,
        ratio: Ratio | None,
        criterion: str | None,
        restorer: str,
        target: str | None = None,
        *,
        looking: str | None = None,
    ) -> Call:
        """Checks a call before anything is opened for it.

        ``looking`` is the option that says what inputs are looked at, where one does.

        Raises:
            UsageError: an argument is wrong, or inputs are given to what reads weights alone.
        """
        call = Call.checked(
            ratio=ratio,
            target=target,
            criterion=criterion,
            restorer=restorer,
            progress=False,
            **dataclasses.asdict(self),
        )
        if looking is not None and not call.reads_inputs:
            raise UsageError(
                f"{looking}: the criterion '{call.criterion.name}' and the restorer '{restorer}' "
                "read weights alone; use --restorer regression, or leave it out"
            )
        return call

    def seen(
        self,
        model: nn.Module,
        example: torch.Tensor,
        made_up: Source,
        data: Iterable[Any] | None = None,
    ) -> Samples:
        """What layers are observed and refitted with, the same for every command.

        Args:
            model: the dense network.
            example: one input.
            made_up: what makes inputs.
            data: images to look at in their place; None = there are none.

        Raises:
            UsageError: the network does not run on the example.
        """
        require_runnable(model, example)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)  # a note of the report says it
            return samples_from(data, made_up, model, example, self.seed, show=True)

    def prune(
        self,
        model: nn.Module,
        example: torch.Tensor,
        ratio: Ratio | None,
        criterion: str | None,
        restorer: str,
        *,
        target: str | None = None,
        value_range: tuple[float, float] | None = None,
        data: Samples | Source | Iterable[Any] | None = None,
        progress: bool = False,
    ) -> tuple[Pruned, float]:
        """The pruned network, and the seconds that it took.

        Args:
            model: the dense network.
            example: one input.
            ratio: as in :func:`bequest.prune`.
            criterion: who leaves; None = as :func:`bequest.prune` decides.
            restorer: what they leave behind.
            target: as in :func:`bequest.prune`.
            value_range: lowest and highest value of an input, where the network's own form tells.
            data: what is looked at, where the call looks at inputs: images, what makes inputs, or
                what :meth:`seen` made; None = what the restorer asks for, within the range.
            progress: a progress bar on a terminal.
        """
        start = time.perf_counter()
        if isinstance(data, Source):
            data = data.within(value_range)
        if data is not None and not isinstance(data, Samples):
            value_range = None  # that of the images, or of the source, counts
        call = self.check(ratio, criterion, restorer, target)
        if call.reads_inputs and not isinstance(data, Samples | Source):
            data = self.seen(model, example, call.restorer.inputs().within(value_range), data)
        method = call.restorer
        if value_range and getattr(method, "value_range", value_range) is None:
            # The plan is to say it.
            method = dataclasses.replace(method, value_range=value_range)  # type: ignore[type-var]
        with warnings.catch_warnings():  # notes of the report say it
            warnings.simplefilter("ignore", NothingPrunedWarning)
            warnings.simplefilter("ignore", InputWarning)
            pruned = bequest.prune(
                model,
                example,
                ratio,
                target=target,
                data=data,
                groups=cast(Kinds, self.groups),
                criterion=criterion,
                scope=cast(Scope, self.scope),
                restorer=method,
                round_to=self.round_to,
                uniform=self.uniform,
                outputs=self.outputs,
                seed=self.seed,
                progress=progress,
            )
        return pruned, time.perf_counter() - start


def measure(
    models: Sequence[nn.Module], example: torch.Tensor, measures: Measures
) -> list[Measured]:
    """What networks cost for one input, and what they make of images or a text if there are any."""
    made = [measures.of(model) for model in models]
    costs = [cost(model, example) for model in models]
    found = zip(costs, timed(models, example), made, strict=True)
    return [Measured(one, latency, *rest) for one, latency, rest in found]


def timed(models: Sequence[nn.Module], example: torch.Tensor) -> list[Latency]:
    """Latencies that a busy machine disturbs as little as may be.

    On the CPU one thread works, as several wait for one another where others want the cores too.
    The networks are timed in turn, three times over, and the fastest of the medians counts.
    """
    rounds = [latencies(models, example, repeats=9, warmup=3, threads=1) for _ in range(3)]
    return [min(found, key=lambda one: one.median) for found in zip(*rounds, strict=True)]


def require_savable(model: nn.Module, *, hugging_face: bool) -> None:
    """Refuses a network that isn't one of transformers' where a folder for these is asked for.

    Raises:
        UsageError: it isn't.
    """
    if hugging_face:
        require_pretrained(model)


def save_with_origin(
    pruned: Pruned, directory: Path, spec: str, form: InputForm, *, hugging_face: bool = False
) -> None:
    """Saves an artefact whose plan says which network it was made from and what that reads.

    With ``hugging_face`` a folder for transformers, whose configuration says as much.

    Raises:
        UsageError: the folder has files in it.
        ModelError: no configuration says the widths.
        ArtifactError: the files can't be written.
    """
    if hugging_face:
        pruned.save_pretrained(directory)
        return
    recipe = {**pruned.plan.recipe, "model": spec, "input": form.to_json()}
    save(directory, pruned.model, dataclasses.replace(pruned.plan, recipe=recipe))

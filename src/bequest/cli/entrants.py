"""The networks of a sweep, from the words of the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bequest.cli.factory import run_files
from bequest.cli.measures import Measures
from bequest.cli.models import open_model
from bequest.errors import UsageError
from bequest.sweeping import Images, Network, Tokens


@dataclass(frozen=True)
class Measuring:
    """What all networks are measured on: the options of ``compare`` that say it."""

    data: Path | None
    text: Path | None
    calibrate: bool
    size: str | None
    mean: str | None
    std: str | None
    window: int | None
    stride: int | None
    limit: int | None
    offset: int
    batch_size: int


def open_entrants(
    models: Sequence[str],
    weights: Sequence[Path],
    base: str | None,
    device: torch.device,
    on: Measuring,
) -> tuple[list[Network], Callable[[], None] | None]:
    """Opens every MODEL.

    Returns:
        The networks, and what another process has to do before it can unpack them.

    Raises:
        UsageError: weights are given for other than all models, or one of the words is wrong.
    """
    if len(weights) not in (0, len(models)):
        raise UsageError(
            f"--weights: expected none or one for each MODEL, found {len(weights)} for "
            f"{len(models)}"
        )
    files: list[Path | None] = list(weights) if weights else [None] * len(models)
    times = Counter(models)
    networks, code = [], []
    for spec, file in zip(models, files, strict=True):
        name = f"{spec} ({file.stem})" if times[spec] > 1 and file is not None else spec
        network, ran = _open(spec, file, base, device, on, name)
        networks.append(network)
        code += ran
    return networks, partial(run_files, tuple(dict.fromkeys(code))) if code else None


def _open(
    spec: str,
    weights: Path | None,
    base: str | None,
    device: torch.device,
    on: Measuring,
    name: str,
) -> tuple[Network, list[Path]]:
    """A network, and the files of code that its class stands in."""
    opened = open_model(spec, weights=weights, base=base, device=device)
    form = opened.form.overridden(on.size, on.mean, on.std, on.window)
    example = form.example(device)
    measures = Measures.open(
        on.data,
        on.text,
        opened,
        form,
        limit=on.limit,
        offset=on.offset,
        batch_size=on.batch_size,
        stride=on.stride,
    )
    seen: Iterable[Any] | None = None
    if on.calibrate:
        measures, seen = measures.set_apart()
    text, images = measures.text, measures.images
    if text is not None:
        assert on.text is not None
        measure: Images | Tokens = Tokens(text.tokens, text.window, text.stride, on.text.name)
    else:
        assert images is not None
        assert on.data is not None
        measure = Images(images, on.data.name)
    ran = [] if opened.base is None else [Path(opened.base.rpartition(":")[0])]
    network = Network(
        name, opened.model, example, measure, data=seen, value_range=form.value_range()
    )
    return network, [path.resolve() for path in ran if path.suffix == ".py"]

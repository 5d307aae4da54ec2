"""``bequest prune --sparsity``: sets single weights to zero, and recovers what they added up to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from torch import nn

from bequest import hypersphere
from bequest.cli.files import write
from bequest.cli.inputs import InputForm
from bequest.cli.models import Opened
from bequest.cli.output import Output
from bequest.cli.tables import table, titled
from bequest.cli.values import parse_names, refuse_beside
from bequest.data import ImageLoader
from bequest.errors import UsageError
from bequest.hypersphere.masks import check_mask, check_sparsity
from bequest.hypersphere.spectrum import SpectralChange
from bequest.hypersphere.storage import LayerStorage
from bequest.measure import Accuracy, evaluate
from bequest.report import wording
from bequest.sparse.remains import check_scope

_OF_CHANNELS = (
    *("--ratio", "--target", "--criterion", "--restorer", "--groups", "--scope", "--round-to"),
    *("--calibrate", "--strategy", "--outputs"),
)
"""What says which channels leave, and who takes over for them."""


@dataclass(frozen=True)
class Wish:
    """The checked options.

    Attributes:
        sparsity: share of the weights that go.
        mask: which; see :func:`bequest.hypersphere.prune`.
        scope: of the means that take their place; None = zeros stay.
        skip: shell patterns of layers that stay whole.
        seed: of the mask "spectrum".

    Raises:
        UsageError: a value is out of range, or "spectrum" is to be recovered.
    """

    sparsity: float
    mask: str
    scope: str | None
    skip: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_mask(self.mask, self.sparsity)
        if self.scope is not None:
            check_scope(self.scope)
            if self.mask == "spectrum":
                raise UsageError(
                    "--recover: the mask 'spectrum' makes up for what it takes by the weights that "
                    "stay, there is nothing to recover"
                )


def single_weights(
    sparsity: float | None,
    mask: str,
    scope: str | None,
    skip: str | None,
    seed: int,
    given: frozenset[str],
) -> Wish | None:
    """What the options ask for; None where they ask for none of it.

    Raises:
        UsageError: a value is out of range, or options that need ``--sparsity`` stand without it,
            or such as choose channels beside it; ``given`` are those on the command line.
    """
    refuse_beside("--sparsity", _OF_CHANNELS, given)
    if sparsity is not None:
        patterns = () if skip is None else parse_names(skip, "--skip")
        return Wish(sparsity, mask, scope, patterns, seed)
    for option in ("--recover", "--skip", "--mask"):
        if option in given:
            raise UsageError(
                f"{option} goes with --sparsity S, which prunes single weights; leave it out, or "
                "say how many of them go"
            )
    return None


@dataclass(frozen=True)
class Result:
    """What pruning came to."""

    storage: list[LayerStorage]
    spectrum: list[SpectralChange]
    accuracies: dict[str, Accuracy]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "layers": [dataclasses.asdict(one) for one in self.storage],
            "spectrum": [dataclasses.asdict(one) for one in self.spectrum],
            "accuracy": {name: dataclasses.asdict(a) for name, a in self.accuracies.items()},
        }


def prune_weights(
    opened: Opened,
    form: InputForm,
    wish: Wish,
    output: Output,
    name: str,
    images: ImageLoader | None,
    out: Path | None,
    html: Path | None,
) -> None:
    """Prunes, recovers, measures, shows and saves.

    Args:
        opened: the network.
        form: what it reads.
        wish: what is to be done.
        output: where the results go.
        name: of the network, as the user wrote it.
        images: to measure the accuracy on, or None.
        out: a new or empty folder to save into, or None.
        html: a file for the page, or None.

    Raises:
        UsageError: a layer does not suit the mask.
        ModelError: the network has no layer to prune.
    """
    dense = opened.model
    example = form.example(next(dense.parameters()).device)
    networks = {"dense": dense, **_pruned(dense, wish)}
    last = list(networks.values())[-1]
    result = Result(
        hypersphere.storage(last, example),
        hypersphere.spectral_report(dense, last),
        {} if images is None else _measured(networks, images),
    )
    if html is not None:
        from bequest.report.sparse import sparse_page

        write(html, sparse_page(name, dataclasses.asdict(wish), dense, last, result.to_json()))
    if out is not None:
        origin = {"model": opened.spec, "input": form.to_json()}
        recipe = {"sparse": dataclasses.asdict(wish), **origin}
        hypersphere.save(out, last, recipe)
    output.show(*_tables(result))
    output.document(
        {
            "model": name,
            **dataclasses.asdict(wish),
            **result.to_json(),
            "saved": None if out is None else str(out),
        }
    )
    if html is not None:
        output.note(f"Page: {html}")
    output.note(
        "Nothing was saved; -o FOLDER saves the pruned network." if out is None else f"Saved: {out}"
    )


def _pruned(dense: nn.Module, wish: Wish) -> dict[str, nn.Module]:
    pruned = hypersphere.prune(dense, wish.sparsity, mask=wish.mask, skip=wish.skip, seed=wish.seed)
    if wish.scope is None:
        return {"pruned": pruned}
    return {"pruned": pruned, "recovered": hypersphere.recover(pruned, wish.scope)}  # type: ignore[arg-type]


def _tables(result: Result) -> list[RenderableType]:
    shifts = {one.layer: one for one in result.spectrum}
    rows = [
        (
            escape(one.layer),
            f"{one.stay:,}/{one.weights:,}",
            wording.size(one.bytes),
            *(
                (f"{shifts[one.layer].error:.3f}", f"{shifts[one.layer].shift:.3f}")
                if one.layer in shifts
                else ("", "")
            ),
        )
        for one in result.storage
    ]
    columns = ("layer", "stay", "stored", "error", "shift")
    shown = [
        titled(
            "Layers; error: |W-B|/|W|, spectral norms; shift: the largest of a singular value",
            table(columns, rows),
        ),
        _sums(result.storage),
    ]
    if result.accuracies:
        measured = [
            (name, wording.percent(found.top1), f"{found.loss:.4f}")
            for name, found in result.accuracies.items()
        ]
        shown.append(table(("", "top-1", "loss"), measured))
    return shown


def _sums(layers: Sequence[LayerStorage]) -> RenderableType:
    def total(name: str) -> int:
        return sum(getattr(one, name) for one in layers)

    rows = [
        ("weights", wording.count(total("weights")), wording.count(total("stay"))),
        ("bytes on disk", wording.size(total("dense_bytes")), wording.size(total("bytes"))),
        (
            "multiplications, one input",
            wording.count(total("dense_multiplications")),
            wording.count(total("multiplications")),
        ),
        (
            "additions, one input",
            wording.count(total("dense_multiplications")),
            wording.count(total("additions")),
        ),
    ]
    return table(("all these layers", "dense", "now"), rows)


def _measured(networks: dict[str, nn.Module], images: ImageLoader) -> dict[str, Accuracy]:
    return {name: evaluate(model, images, progress=True) for name, model in networks.items()}

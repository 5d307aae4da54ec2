"""``bequest demo``: a real network on real digits, pruned and restored, without any download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bequest.cli import options
from bequest.cli.output import Output


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FOLDER", help="A new folder, or that of an earlier demo."
        ),
    ] = Path("demo-out"),
    json: options.Json = False,
) -> None:
    """Trains a small VGG on scikit-learn's digits and prunes it with every restorer.

    Under a minute on two cores; a later run loads what the first one trained. Nothing is
    downloaded. The folder then holds a page with pictures, the dense weights, a pruned network and
    the held-out images, so that every other command can be tried on them.
    """
    from bequest.cli.cells import comparison_tables
    from bequest.cli.demonstration import REPORT, demonstrate, require_demo_folder

    with Output(json) as output:
        require_demo_folder(out)
        outcome = demonstrate(out, output)
        saved = outcome.saved
        output.show(
            *comparison_tables(outcome.comparison),
            f"Saved: {saved.restorer} at {100 * saved.ratio:g} %, top-1 "
            f"{saved.accuracy.top1:.2f} %. Loaded again: {outcome.reloaded.top1:.2f} %.",
        )
        output.document(outcome.to_json())
        given = f"--data {out}/held-out.npz"
        dense = f"zoo:vgg-digits --weights {out}/dense.safetensors {given}"
        output.note(f"Page with pictures: {out / REPORT}")
        output.note(f"Next: bequest evaluate {out}/pruned {given}")
        output.note(f"      bequest prune {dense} --ratio 0.6 --round-to 1")
        output.note(f"      bequest compare {dense} --criterion l1,l2 --round-to 1")

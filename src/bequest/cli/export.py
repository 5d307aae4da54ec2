"""``bequest export``: a network, dense or pruned, as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bequest.cli import options
from bequest.cli.output import Output


def export(
    model: options.Model,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="FILE", show_default=False, help="The .onnx file."),
    ],
    weights: options.Weights = None,
    size: options.Size = None,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Inputs that the file takes at once.")
    ] = 1,
    dynamic: Annotated[
        str | None,
        typer.Option(
            metavar="batch,size",
            help="What the file takes at any number: the batch, height and width of images.",
        ),
    ] = None,
    base: options.Base = None,
    json: options.Json = False,
) -> None:
    """Writes a network as ONNX, for runtimes other than PyTorch.

    onnxruntime runs the file first: unless its outputs are PyTorch's to 1e-4, nothing is written.
    """
    import torch

    from bequest.artifact.export import export as to_onnx
    from bequest.cli.files import require_file
    from bequest.cli.models import open_model
    from bequest.cli.values import parse_names
    from bequest.report import wording

    with Output(json) as output:
        require_file(out, "--out", ".onnx")
        opened = open_model(model, weights=weights, base=base, device=torch.device("cpu"))
        form = opened.form.overridden(size, None, None)
        example = form.example(torch.device("cpu"))
        output.waiting(f"exporting {model}")
        difference = to_onnx(
            opened.model,
            example.expand(batch_size, *example.shape[1:]).contiguous(),
            out,
            dynamic=() if dynamic is None else parse_names(dynamic, "--dynamic"),
        )
        held = out.stat().st_size
        output.document({"model": model, "file": str(out), "bytes": held, "difference": difference})
        output.note(f"Saved: {out} ({wording.size(held)})")
        output.note(f"onnxruntime and PyTorch differ by {difference:.0e} at most.")

"""``bequest train``: trains a network so that it can be pruned at any moment afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bequest.cli import options
from bequest.cli.output import Output

_TRAINING, _PROCESSES = "The training", "Processes"


def train(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the images.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="The trained network goes here, checkpoints and log into FOLDER/training.",
        ),
    ],
    hyperspherical: Annotated[
        bool,
        typer.Option(
            "--hyperspherical/--plain",
            rich_help_panel=_TRAINING,
            help="Train the filters as directions, or the network as it is.",
        ),
    ] = True,
    sparsity: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_TRAINING,
            metavar="S",
            help="Share of the weights that a penalty drives to zero, in 0..1; 0 = no penalty. "
            "0.5 if it is not given, 0 with --plain.",
        ),
    ] = None,
    mask: Annotated[
        str,
        typer.Option(
            rich_help_panel=_TRAINING,
            metavar="layer|filter|global|N:M",
            help="How the share is counted.",
        ),
    ] = "layer",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in FOLDER/training.")
    ] = False,
    validation: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Images",
            metavar="PATH",
            help="Labelled images whose accuracy is taken after every epoch.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(rich_help_panel=_TRAINING, metavar="N", help="Images per step.")
    ] = 128,
    lr: Annotated[
        float,
        typer.Option(
            rich_help_panel=_TRAINING,
            metavar="R",
            help="Highest learning rate; 0.03 for a network that is trained already.",
        ),
    ] = 0.25,
    penalty: Annotated[
        float,
        typer.Option(rich_help_panel=_TRAINING, metavar="L", help="Highest weight of the penalty."),
    ] = 0.3,
    penalty_warmup: Annotated[
        float,
        typer.Option(
            rich_help_panel=_TRAINING,
            metavar="S",
            help="Share of the steps over which the penalty's weight rises: 0 or more, under 1.",
        ),
    ] = 0.8,
    form: Annotated[
        str,
        typer.Option(
            rich_help_panel=_TRAINING, metavar="two-term|cosine", help="Form of the penalty."
        ),
    ] = "two-term",
    augment: Annotated[
        str,
        typer.Option(
            rich_help_panel=_TRAINING,
            metavar="crop,flip|none",
            help="Random changes of the images.",
        ),
    ] = "crop,flip",
    precision: Annotated[
        str,
        typer.Option(
            rich_help_panel=_TRAINING,
            metavar="32-true|bf16-mixed|16-mixed",
            help="Of the numbers.",
        ),
    ] = "32-true",
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_TRAINING,
            metavar="N",
            help="Steps between checkpoints; one is written after every epoch too.",
        ),
    ] = None,
    accelerator: Annotated[
        str, typer.Option(rich_help_panel=_PROCESSES, metavar="cpu|cuda|mps", help="Where to work.")
    ] = "cpu",
    devices: Annotated[
        int, typer.Option(rich_help_panel=_PROCESSES, metavar="N", help="Processes per machine.")
    ] = 1,
    nodes: Annotated[
        int, typer.Option(rich_help_panel=_PROCESSES, metavar="N", help="Machines; see torchrun.")
    ] = 1,
    seed: options.Seed = 0,
    weights: options.Weights = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    limit: options.Limit = None,
    offset: options.Offset = 0,
    base: options.Base = None,
    json: options.Json = False,
) -> None:
    """Trains a network on the hypersphere, with a penalty that prepares it for pruning.

    A network of the zoo starts from random weights, or from --weights. A run that was interrupted
    goes on with --resume as if it had not been. The trained network is saved as a plain one.
    """
    import dataclasses

    import torch

    from bequest.cli.models import open_model
    from bequest.cli.tables import table
    from bequest.cli.values import options_given, parse_names
    from bequest.hypersphere import save
    from bequest.hypersphere.checkpoint import EpochRecord
    from bequest.hypersphere.recipe import Recipe
    from bequest.hypersphere.training import FOLDER, require_folder
    from bequest.hypersphere.training import train as run
    from bequest.report import wording

    with Output(json) as output:
        if sparsity is None:
            sparsity = 0.5 if hyperspherical else 0.0
        if sparsity == 0:
            _refuse_penalty(options_given(context))
        recipe = Recipe(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            hyperspherical=hyperspherical,
            sparsity=sparsity,
            penalty=penalty,
            penalty_warmup=penalty_warmup,
            form=form,  # type: ignore[arg-type]  # checked by the recipe
            mask=mask,
            augment=() if augment == "none" else parse_names(augment, "--augment"),
            precision=precision,
            seed=seed,
        )
        require_folder(out, resume=resume)
        torch.manual_seed(seed)  # the weights that a network of the zoo starts from
        opened = open_model(
            model, weights=weights, base=base, device=torch.device("cpu"), trained=False
        )
        form_of_input = opened.form.overridden(size, mean, std)
        images = form_of_input.images(data, limit=limit, offset=offset, batch_size=batch_size)
        held_out = None
        if validation is not None:
            held_out = form_of_input.images(validation, limit=None, offset=0, batch_size=500)

        def report(record: EpochRecord) -> None:
            accuracy = "" if record.top1 is None else f", top-1 {wording.percent(record.top1)}"
            output.note(
                f"epoch {record.epoch} of {epochs}: loss {record.loss:.4f}, "
                f"penalty {record.penalty:.4f}{accuracy}, {record.seconds:.0f} s"
            )

        trained = run(
            opened.model,
            images,
            recipe,
            out / FOLDER,
            validation=held_out,
            resume=resume,
            checkpoint_every=checkpoint_every,
            accelerator=accelerator,
            devices=devices,
            nodes=nodes,
            report=report,
            progress=True,
        )
        if not trained.is_main:
            return
        origin = {"model": opened.spec, "input": form_of_input.to_json()}
        save(out, trained.model, {"training": recipe.to_json(), **origin}, beside=FOLDER)

        rows = [
            (
                f"{record.epoch}",
                f"{record.loss:.4f}",
                f"{record.penalty:.4f}",
                "" if record.top1 is None else wording.percent(record.top1),
                f"{record.seconds:.0f} s",
            )
            for record in trained.history
        ]
        output.show(table(("epoch", "loss", "penalty", "top-1", "time"), rows))
        output.document(
            {
                "model": model,
                "recipe": recipe.to_json(),
                "epochs": [dataclasses.asdict(record) for record in trained.history],
                "saved": str(out),
            }
        )
        output.note(f"Saved: {out}")
        needed = "" if opened.base is None else f"--model {opened.base} "
        prepared = f"--sparsity {sparsity:g} --recover filter" if sparsity else "--ratio 0.5"
        output.note(f"Next: bequest prune {out} {needed}{prepared}")


def _refuse_penalty(given: frozenset[str]) -> None:
    """Refuses options that say something of a penalty where there is none."""
    from bequest.errors import UsageError

    for option in ("--mask", "--penalty", "--penalty-warmup", "--form"):
        if option in given:
            raise UsageError(
                f"{option} says something of the penalty, which a sparsity of 0 leaves out; give "
                "--sparsity S, or leave it out"
            )

"""``bequest prune``: prunes and restores a network, shows what happened, saves it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bequest.cli import options
from bequest.cli.output import Output


def prune(
    model: options.Model,
    ratio: Annotated[
        str,
        typer.Option(
            metavar="R|PATTERN=R,...",
            help="Share of its channels that each layer loses, in 0..1; or shell patterns on "
            "layers' names with their shares, of which the first match counts.",
        ),
    ] = "0.5",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FOLDER", help="Save here; a new or empty folder."),
    ] = None,
    weights: options.Weights = None,
    criterion: options.Criterion = "l2",
    restorer: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Who hands on what they knew: none, merge, lbyl, ...; a wrong name lists all.",
        ),
    ] = "lbyl",
    groups: options.Groups = "inner",
    scope: options.Scope = "group",
    round_to: options.RoundTo = 8,
    seed: options.Seed = 0,
    data: options.OptionalData = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    limit: options.Limit = None,
    offset: options.Offset = 0,
    batch_size: options.BatchSize = 256,
    device: options.Device = "cpu",
    base: options.Base = None,
    strategy: options.Strategy = None,
    input_range: options.InputRange = None,
    step: options.Step = 1 / 64,
    alpha: options.Alpha = 0.75,
    html: options.Html = None,
    json: options.Json = False,
) -> None:
    """Removes channels of a trained network for real and hands what they knew to the others.

    Without training and without data. Shows every pruned layer, what could not be pruned and why,
    and what the network costs before and after.
    """
    from bequest.artifact.folder import require_empty
    from bequest.cli.files import require_file, write
    from bequest.cli.models import open_model
    from bequest.cli.robust import Progressive, robust_json, robust_tables
    from bequest.cli.steps import Settings, measure, save_with_origin
    from bequest.cli.tables import group_table, refusal_tables, table
    from bequest.cli.values import parse_device, parse_ratio
    from bequest.report import PruningResult, pruning_page
    from bequest.report.pruning import before_and_after

    with Output(json) as output:
        settings = Settings(groups, scope, round_to, seed)
        shares = parse_ratio(ratio)
        settings.check(shares, criterion, restorer)
        progressive = Progressive.parse(strategy, input_range, step, alpha, groups)
        if out is not None:
            require_empty(out)
        require_file(html, "--html")
        place = parse_device(device)
        opened = open_model(model, weights=weights, base=base, device=place)
        form = opened.form.overridden(size, mean, std)
        example = form.example(place)
        images = None
        if data is not None:
            images = form.images(data, limit=limit, offset=offset, batch_size=batch_size)

        output.waiting(f"tracing and pruning {model}")
        if progressive is not None:
            pruned, seconds = progressive.prune(opened.model, example, shares, restorer, seed, form)
        else:
            pruned, seconds = settings.prune(
                opened.model, example, shares, criterion, restorer, progress=True
            )
        before, after = measure((opened.model, pruned.model), example, images)
        recipe = pruned.plan.recipe
        result = PruningResult(model, recipe, pruned.report, before, after, seconds)
        if out is not None:
            save_with_origin(pruned, out, opened.spec, form)
        if html is not None:
            write(html, pruning_page(result))

        output.show(
            group_table(pruned.report.groups),
            *refusal_tables(pruned.report.refused),
            *robust_tables(pruned.report),
            table(("", "before", "after", "change"), before_and_after(result)),
        )
        output.document(
            {
                **result.to_json(),
                **robust_json(pruned.report),
                "saved": None if out is None else str(out),
            }
        )
        output.note(f"Pruned and restored in {seconds:.1f} s.")
        if html is not None:
            output.note(f"Page: {html}")
        if out is not None:
            needed = "" if opened.base is None else f"--model {opened.base} "
            output.note(f"Saved: {out}")
            output.note(f"Next: bequest evaluate {out} {needed}--data {data or 'PATH'}")
        else:
            output.note("Nothing was saved; -o FOLDER saves the pruned network.")

"""``bequest compare``: restorers side by side over several ratios, as table and curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bequest.cli import options
from bequest.cli.output import Output


def compare(
    context: typer.Context,
    model: options.Model,
    data: options.DataOrText = None,
    text: options.Text = None,
    window: options.Window = None,
    stride: options.Stride = None,
    calibrate: options.Calibrate = False,
    ratios: Annotated[
        str, typer.Option(metavar="R,R,...", help="Shares of channels that each layer loses.")
    ] = "0.3,0.5,0.7",
    restorers: Annotated[
        str, typer.Option(metavar="NAME,...", help="What is compared; a wrong name lists all.")
    ] = "none,merge,lbyl,regression",
    criterion: Annotated[
        str,
        typer.Option(
            metavar="NAME,...", help="Which channels leave; one or several; a wrong name lists all."
        ),
    ] = "l2",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Write every cell to a .csv or .json."),
    ] = None,
    weights: options.Weights = None,
    groups: options.Groups = "inner",
    scope: options.Scope = "group",
    round_to: options.RoundTo = 8,
    seed: options.Seed = 0,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    limit: options.Limit = None,
    offset: options.Offset = 0,
    batch_size: options.BatchSize = 256,
    device: options.Device = "cpu",
    base: options.Base = None,
    html: options.Html = None,
    json: options.Json = False,
) -> None:
    """Prunes at every ratio with every restorer and measures each on the same images, or text.

    Inputs for what looks at inputs (regression, obs, ...) are made up once for all. Where
    nothing could be pruned at any ratio the exit code is 1.
    """
    from bequest.cli.cells import comparison_tables, encode
    from bequest.cli.files import require_file, write
    from bequest.cli.grid import compare_all
    from bequest.cli.measures import Measures
    from bequest.cli.models import open_model
    from bequest.cli.steps import Settings
    from bequest.cli.text import require_one
    from bequest.cli.values import options_given, parse_device, parse_names, parse_ratios
    from bequest.errors import ModelError
    from bequest.report import comparison_page
    from bequest.selection.outcome import nothing_pruned

    with Output(json) as output:
        on = require_one(data, text, window, stride, options_given(context))
        settings = Settings(groups, scope, round_to, seed)
        asked = parse_ratios(ratios)
        criteria = parse_names(criterion, "--criterion")
        handing = parse_names(restorers, "--restorers")
        for one in criteria:
            for other in handing:
                settings.check(asked[0], one, other)
        require_file(html, "--html")
        require_file(out, "--out", ".csv", ".json")
        place = parse_device(device)
        opened = open_model(model, weights=weights, base=base, device=place)
        form = opened.form.overridden(size, mean, std, window)
        measures = Measures.open(
            data,
            text,
            opened,
            form,
            limit=limit,
            offset=offset,
            batch_size=batch_size,
            stride=stride,
        )
        measures, seen = measures.set_apart() if calibrate else (measures, None)
        comparison = compare_all(
            opened.model,
            form.example(place),
            measures,
            name=model,
            data=on.name,
            ratios=asked,
            criteria=criteria,
            restorers=handing,
            settings=settings,
            value_range=form.value_range(),
            looked_at=seen,
        )
        if out is not None:
            write(out, encode(comparison, out.suffix.lower()))
        if html is not None:
            write(html, comparison_page(comparison))
        output.show(*comparison_tables(comparison))
        output.document(comparison.to_json())
        for path in (html, out):
            if path is not None:
                output.note(f"Written: {path}")
        idle = [
            nothing_pruned(one.ratio, one.groups, one.refused)
            for one in comparison.cells
            if one.ratio
        ]
        if idle and None not in idle:
            raise ModelError(str(idle[0]))

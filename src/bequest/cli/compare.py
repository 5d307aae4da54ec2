"""``bequest compare``: restorers side by side over several ratios, as table and curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from bequest.cli import options
from bequest.cli.output import Output

_SWEEP = "The sweep"


def compare(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            show_default=False,
            help="One or several, each zoo:NAME, timm:NAME, torchvision:NAME, hf:ID (or "
            "hf:./FOLDER), FILE.py:FACTORY (runs that file), or a folder that bequest saved.",
        ),
    ],
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
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            rich_help_panel="The network",
            metavar="FILE",
            help="Trained weights, as .safetensors or a .pth that holds nothing but tensors; with "
            "several models once for each, in their order.",
        ),
    ] = None,
    groups: options.Groups = "inner",
    scope: options.Scope = "group",
    round_to: options.RoundTo = 8,
    seed: options.Seed = 0,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Instead of --seed: every cell with each of them."),
    ] = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    limit: options.Limit = None,
    offset: options.Offset = 0,
    batch_size: options.BatchSize = 256,
    device: options.Device = "cpu",
    base: options.Base = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Time every pruned network beside its dense one.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            rich_help_panel=_SWEEP,
            metavar="local|ray",
            help="Where cells are worked on: processes of this machine, or a Ray cluster.",
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_SWEEP,
            metavar="N",
            help="Cells at once, on one thread each; all idle cores, or those of the cluster, "
            "where it isn't said.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_SWEEP,
            metavar="HOST:PORT",
            help="With --engine ray: the cluster; auto = the one that this machine belongs to. "
            "Without it one is started here.",
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_SWEEP,
            metavar="FILE",
            help="Every finished cell is added to it; the same call goes on from there.",
        ),
    ] = None,
    html: options.Html = None,
    json: options.Json = False,
) -> None:
    """Prunes at every ratio with every restorer and measures each on the same images, or text.

    Inputs for what looks at inputs (regression, obs, ...) are made up once for all. A cell that
    fails doesn't stop the others. Where one failed, or nothing could be pruned at any ratio, the
    exit code is 1.
    """
    from bequest.cli.cells import encode, require_done, sweep_tables
    from bequest.cli.entrants import Measuring, open_entrants
    from bequest.cli.files import require_file, write
    from bequest.cli.steps import Settings
    from bequest.cli.text import require_one
    from bequest.cli.values import (
        options_given,
        parse_device,
        parse_names,
        parse_ratios,
        parse_seeds,
        refuse_beside,
    )
    from bequest.report import sweep_page
    from bequest.selection.policy import Kinds
    from bequest.selection.widths import Scope
    from bequest.sweeping import sweep
    from bequest.sweeping.run import Engines, check_engine

    with Output(json) as output:
        given = options_given(context)
        require_one(data, text, window, stride, given)
        refuse_beside("--seeds", ("--seed",), given)
        settings = Settings(groups, scope, round_to, seed)
        asked = parse_ratios(ratios)
        criteria = parse_names(criterion, "--criterion")
        handing = parse_names(restorers, "--restorers")
        numbers = (seed,) if seeds is None else parse_seeds(seeds)
        for one in criteria:
            for other in handing:
                settings.check(asked[0], one, other)
        require_file(html, "--html")
        require_file(out, "--out", ".csv", ".json")
        require_file(journal, "--journal")
        check_engine(engine, workers, address)
        on = Measuring(
            data, text, calibrate, size, mean, std, window, stride, limit, offset, batch_size
        )
        networks, setup = open_entrants(models, weights or (), base, parse_device(device), on)
        found = sweep(
            networks,
            ratios=asked,
            criteria=criteria,
            restorers=handing,
            seeds=numbers,
            groups=cast(Kinds, groups),
            scope=cast(Scope, scope),
            round_to=round_to,
            latency=latency,
            engine=cast(Engines, engine),
            workers=workers,
            address=address,
            journal=journal,
            setup=setup,
        )
        if out is not None:
            write(out, encode(found, out.suffix.lower()))
        if html is not None:
            write(html, sweep_page(found))
        output.show(*sweep_tables(found))
        output.document(found.to_json())
        for path in (html, out):
            if path is not None:
                output.note(f"Written: {path}")
        require_done(found)

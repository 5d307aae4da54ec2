"""``bequest prune``: prunes and restores a network, shows what happened, saves it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bequest.cli import options
from bequest.cli.output import Output

if TYPE_CHECKING:
    from bequest.cli.inputs import InputForm
    from bequest.report import PruningResult

_SINGLE = "Single weights instead of channels"


def prune(
    context: typer.Context,
    model: options.Model,
    ratio: Annotated[
        str | None,
        typer.Option(
            metavar="R|PATTERN=R,...",
            help="Share of its channels that each layer loses, in 0..1; or shell patterns on "
            "layers' names with their shares, of which the first match counts. 0.5 where there is "
            "no --target either.",
        ),
    ] = None,
    target: options.Target = None,
    sparsity: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_SINGLE,
            metavar="S",
            help="Set this share of the weights to zero instead of removing channels.",
        ),
    ] = None,
    mask: Annotated[
        str,
        typer.Option(
            rich_help_panel=_SINGLE,
            metavar="layer|filter|global|N:M|...",
            help="Which weights go; a wrong name lists all.",
        ),
    ] = "layer",
    recover: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_SINGLE,
            metavar="filter|layer|signed",
            help="Put the mean of the pruned weights in their place.",
        ),
    ] = None,
    skip: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_SINGLE, metavar="PATTERN,...", help="Layers that stay whole."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FOLDER", help="Save here; a new or empty folder."),
    ] = None,
    saved_as: options.Format = "bequest",
    weights: options.Weights = None,
    criterion: options.Criterion = None,
    restorer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Who hands on what they knew: none, merge, lbyl, ...; a wrong name lists all. "
            "regression where none is named, sum with --strategy.",
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            help="Of the restorer regression: quick, default or long (about ten times the time).",
        ),
    ] = None,
    groups: options.Groups = "inner",
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Which of several results count; those of the others may become narrower. All "
            "where none is named.",
        ),
    ] = None,
    scope: options.Scope = "group",
    round_to: options.RoundTo = 8,
    seed: options.Seed = 0,
    data: options.DataOrSource = None,
    text: options.Text = None,
    window: options.Window = None,
    stride: options.Stride = None,
    calibrate: options.Calibrate = False,
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

    Without training, and without data unless --calibrate asks for them. Shows every pruned layer,
    what could not be pruned and why, and what the network costs before and after. Where nothing
    could be pruned the exit code is 1, and nothing is saved.
    """
    from bequest.cli.files import require_file
    from bequest.cli.measures import Measures, parse_measures
    from bequest.cli.models import open_model
    from bequest.cli.robust import Progressive
    from bequest.cli.sparse import prune_weights, single_weights
    from bequest.cli.steps import Settings, measure, require_savable, save_with_origin
    from bequest.cli.values import (
        options_given,
        parse_device,
        parse_names,
        parse_out,
        parse_ratio,
    )
    from bequest.errors import ModelError
    from bequest.report import PruningResult
    from bequest.selection.outcome import nothing_pruned

    with Output(json) as output:
        given = options_given(context)
        single = single_weights(sparsity, mask, recover, skip, seed, given)
        hugging_face = parse_out(out, saved_as, given)
        settings = Settings(
            *(groups, scope, round_to, seed, hugging_face, effort),
            outputs=None if outputs is None else parse_names(outputs, "--outputs"),
        )
        shares = None if ratio is None else parse_ratio(ratio)
        restorer = restorer or ("regression" if strategy is None else "sum")
        path, source = parse_measures(data, text, window, stride, given)
        looking = "--calibrate" if calibrate else "--data" if source else None
        settings.check(shares, criterion, restorer, target, looking=looking)
        progressive = Progressive.parse(strategy, input_range, step, alpha, groups, given)
        require_file(html, "--html")
        place = parse_device(device)
        opened = open_model(model, weights=weights, base=base, device=place)
        require_savable(opened.model, hugging_face=hugging_face)
        form = opened.form.overridden(size, mean, std, window)
        example = form.example(place)
        measures = Measures.open(
            path,
            text,
            opened,
            form,
            limit=limit,
            offset=offset,
            batch_size=batch_size,
            stride=stride,
        )
        measures, seen = measures.set_apart() if calibrate else (measures, source)

        if single is not None:
            prune_weights(opened, form, single, output, model, measures.images, out, html)
            return

        output.waiting(f"tracing and pruning {model}")
        if progressive is not None:
            pruned, seconds = progressive.prune(
                opened.model, example, 0.5 if shares is None else shares, restorer, seed, form
            )
        else:
            pruned, seconds = settings.prune(
                opened.model,
                example,
                shares,
                criterion,
                restorer,
                target=target,
                value_range=form.value_range(),
                data=seen,
                progress=True,
            )
        before, after = measure((opened.model, pruned.model), example, measures)
        recipe, report, form_now = pruned.plan.recipe, pruned.report, pruned.plan.form
        result = PruningResult(model, recipe, report, before, after, seconds, form_now)
        idle = nothing_pruned(recipe["ratio"], report.groups, report.refused)
        saved = None if idle else out
        if saved is not None:
            save_with_origin(pruned, saved, opened.spec, form, hugging_face=hugging_face)
        again = f"hf:{saved}" if hugging_face else str(saved)
        _show(output, result, html, saved, _next(again, opened.base, form, text or path))
        if idle:
            raise ModelError(idle)


def _next(saved: str, base: str | None, form: InputForm, read: Path | None) -> str:
    """The words behind ``bequest evaluate``; beside a network of a file lies no tokenizer."""
    if form.vocabulary is None:
        by = f"--data {read or 'PATH'}"
    else:
        by = f"--text {read or 'FILE'}" if base is None else "--latency"
    return f"{saved} {by}" if base is None else f"{saved} --model {base} {by}"


def _show(
    output: Output, result: PruningResult, html: Path | None, out: Path | None, rest: str
) -> None:
    """Tables for a person, a page, one document for a program; what to evaluate next."""
    from bequest.cli.files import write
    from bequest.cli.robust import robust_json, robust_tables
    from bequest.cli.tables import group_table, refusal_tables, table
    from bequest.report import pruning_page, wording
    from bequest.report.pruning import AS_PROGRAM, before_and_after
    from bequest.selection.outcome import NOTHING

    pruned = [group_table(result.report.groups)] if result.report.groups else []
    output.show(
        *pruned,
        *refusal_tables(result.report.refused),
        *robust_tables(result.report),
        table(("", "before", "after", "change"), before_and_after(result)),
    )
    saved = None if out is None else str(out)
    output.document({**result.to_json(), **robust_json(result.report), "saved": saved})
    if result.report.groups:
        output.note(f"Pruned and restored in {result.seconds:.1f} s.")
    for note in wording.merged(n for n in result.report.notes if not n.startswith(NOTHING)):
        output.note(f"Note: {note}")
    if result.form == "program":
        output.note(AS_PROGRAM)
    if timed := result.recipe.get("timed"):
        output.note(
            f"Timed to meet the target, before restoring: {timed['pruned_ms']:.3g} of "
            f"{timed['dense_ms']:.3g} ms ({timed['device']}, threads: {timed['threads']}), every "
            f"group asked to lose {timed['ratio']:.3f}."
        )
    if html is not None:
        write(html, pruning_page(result))
        output.note(f"Page: {html}")
    if out is not None:
        output.note(f"Saved: {out}")
        output.note(f"Next: bequest evaluate {rest}")
    else:
        output.note("Nothing was saved; -o FOLDER saves a network that was pruned.")

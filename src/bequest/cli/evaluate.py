"""``bequest evaluate``: accuracy, cost and latency of a network, dense or pruned."""

from __future__ import annotations

from typing import Annotated

import typer

from bequest.cli import options
from bequest.cli.output import Output


def evaluate(
    context: typer.Context,
    model: options.Model,
    data: options.DataOrText = None,
    text: options.Text = None,
    window: options.Window = None,
    stride: options.Stride = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Also time a forward pass of one input.")
    ] = False,
    weights: options.Weights = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    limit: options.Limit = None,
    offset: options.Offset = 0,
    batch_size: options.BatchSize = 256,
    device: options.Device = "cpu",
    base: options.Base = None,
    attack: options.Attack = None,
    certify: options.Certify = False,
    certify_steps: options.CertifySteps = 0,
    eps: options.Eps = "0.01",
    json: options.Json = False,
) -> None:
    """Measures accuracy over labelled images, or the perplexity of a text, and what it costs.

    A saved folder is rebuilt from its plan and its tensors; nothing in it is executed. With
    --latency alone it says what the network costs.
    """
    import dataclasses

    from bequest import measure
    from bequest.cli.certify import Certify
    from bequest.cli.measures import Measures
    from bequest.cli.models import open_model
    from bequest.cli.robust import Attack
    from bequest.cli.steps import timed
    from bequest.cli.tables import table
    from bequest.cli.text import require_one
    from bequest.cli.values import options_given, parse_device
    from bequest.report import wording

    with Output(json) as output:
        place = parse_device(device)
        given = options_given(context)
        certifying = Certify.parse(certify, eps, certify_steps, model, data)
        attacking = Attack.parse(attack, eps, given - {"--eps"} if certify else given)
        require_one(data, text, window, stride, given, alone=latency and not attack)
        own, its_dense = certifying.weights(weights)
        opened = open_model(model, weights=own, base=base, device=place)
        dense = certifying.dense(opened, base, its_dense, place)
        form = opened.form.overridden(size, mean, std, window)
        example = form.example(place)
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
        accuracy, read = measures.of(opened.model)
        attacked = {}
        if attacking is not None and measures.images is not None:
            attacked = attacking.run(opened.model, measures.images, form)
        certified = certifying.run(opened, dense, measures.images, form)
        cost = measure.cost(opened.model, example)
        timing = timed([opened.model], example)[0] if latency else None

        rows = []
        if accuracy is not None:
            rows += [("images", f"{accuracy.count:,}"), ("top-1", wording.percent(accuracy.top1))]
            if accuracy.top5 is not None:
                rows.append(("top-5", wording.percent(accuracy.top5)))
            rows.append(("loss", f"{accuracy.loss:.4f}"))
            if accuracy.nonfinite:
                rows.append(("outputs with NaN or infinity", f"{accuracy.nonfinite:,}"))
        if read is not None:
            rows += [
                ("perplexity", wording.perplexity(read.perplexity)),
                ("loss", f"{read.loss:.4f}"),
                ("next token right", wording.percent(read.top1)),
                ("tokens foretold", f"{read.tokens:,} in {read.windows:,} windows"),
                ("tokens per second", wording.count(read.tokens_per_second)),
            ]
        if attacking is not None:
            rows += attacking.rows(attacked)
        rows += certifying.rows(certified)
        rows += [
            ("parameters", wording.count(cost.params)),
            ("MACs, one input", wording.count(cost.macs)),
            ("tensors on disk", wording.size(cost.bytes)),
        ]
        if timing is not None:
            middle = f"{wording.milliseconds(timing.p10)} to {wording.milliseconds(timing.p90)}"
            rows.append(
                (wording.place(timing), f"{wording.milliseconds(timing.median)} ({middle})")
            )
        output.show(table(("", ""), rows))
        output.document(
            {
                "model": model,
                "data": None if data is None else str(data),
                "text": None if text is None else str(text),
                "accuracy": None if accuracy is None else dataclasses.asdict(accuracy),
                "perplexity": None if read is None else dataclasses.asdict(read),
                "robustness": [
                    {"eps": size, **dataclasses.asdict(one)} for size, one in attacked.items()
                ],
                "certificates": [
                    {"eps": size, **dataclasses.asdict(one)} for size, one in certified.items()
                ],
                "cost": dataclasses.asdict(cost),
                "latency": None if timing is None else dataclasses.asdict(timing),
            }
        )

"""``bequest evaluate``: accuracy, cost and latency of a network, dense or pruned."""

from __future__ import annotations

from typing import Annotated

import typer

from bequest.cli import options
from bequest.cli.output import Output


def evaluate(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
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
    eps: options.Eps = "0.01",
    json: options.Json = False,
) -> None:
    """Measures top-1, top-5 and loss over labelled images, and what the network costs.

    A saved folder is rebuilt from its plan and its tensors; nothing in it is executed.
    """
    import dataclasses

    from bequest import measure
    from bequest.cli.models import open_model
    from bequest.cli.robust import Attack
    from bequest.cli.steps import timed
    from bequest.cli.tables import table
    from bequest.cli.values import options_given, parse_device
    from bequest.report import wording

    with Output(json) as output:
        place = parse_device(device)
        attacking = Attack.parse(attack, eps, options_given(context))
        opened = open_model(model, weights=weights, base=base, device=place)
        form = opened.form.overridden(size, mean, std)
        example = form.example(place)
        images = form.images(data, limit=limit, offset=offset, batch_size=batch_size)

        accuracy = measure.evaluate(opened.model, images, progress=True)
        attacked = {} if attacking is None else attacking.run(opened.model, images, form)
        cost = measure.cost(opened.model, example)
        timing = timed([opened.model], example)[0] if latency else None

        rows = [("images", f"{accuracy.count:,}"), ("top-1", wording.percent(accuracy.top1))]
        if accuracy.top5 is not None:
            rows.append(("top-5", wording.percent(accuracy.top5)))
        rows.append(("loss", f"{accuracy.loss:.4f}"))
        if accuracy.nonfinite:
            rows.append(("outputs with NaN or infinity", f"{accuracy.nonfinite:,}"))
        if attacking is not None:
            rows += attacking.rows(attacked)
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
                "data": str(data),
                "accuracy": dataclasses.asdict(accuracy),
                "robustness": [
                    {"eps": size, **dataclasses.asdict(one)} for size, one in attacked.items()
                ],
                "cost": dataclasses.asdict(cost),
                "latency": None if timing is None else dataclasses.asdict(timing),
            }
        )

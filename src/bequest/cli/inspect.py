"""``bequest inspect``: the groups of channels of a network, and what can't be pruned and why."""

from __future__ import annotations

from bequest.cli import options
from bequest.cli.output import Output


def inspect(
    model: options.Model,
    weights: options.Weights = None,
    size: options.Size = None,
    device: options.Device = "cpu",
    base: options.Base = None,
    json: options.Json = False,
) -> None:
    """Lists which layers' channels leave together, how wide they are and who reads them.

    Groups that differ in nothing but a number in their name share a row. Needs no weights.
    """
    import dataclasses

    import bequest
    from bequest.cli.models import open_model
    from bequest.cli.values import parse_device
    from bequest.cli.views import inspection_tables

    with Output(json) as output:
        place = parse_device(device)
        opened = open_model(model, weights=weights, base=base, device=place, trained=False)
        form = opened.form.overridden(size, None, None)
        example = form.example(place)
        output.waiting(f"tracing {model}")
        inspection = bequest.inspect(opened.model, example)
        output.show(*inspection_tables(inspection))
        output.document({"model": model, **dataclasses.asdict(inspection)})

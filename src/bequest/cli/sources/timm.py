"""``timm:NAME``: size, normalisation and crop come from timm's own record of the network."""

from __future__ import annotations

from typing import Any

from torch import nn

from bequest.cli.inputs import InputForm
from bequest.cli.sources.base import source
from bequest.cli.sources.library import made_by_name, unknown


@source("timm:NAME")
def open_timm(word: str, published: bool) -> tuple[nn.Module, InputForm]:
    """``NAME`` or ``NAME,num_classes=10,...``; settings go to ``timm.create_model``.

    Raises:
        As :func:`made_by_name`; UsageError: timm has no such network.
    """
    return made_by_name("timm", word, published, library="timm", make=_make)


def _make(timm: Any, name: str, published: bool, settings: dict[str, Any]) -> Any:
    if not timm.is_model(name):
        raise unknown("timm", name, timm.list_models())
    model = timm.create_model(name, pretrained=published, **settings)
    found = timm.data.resolve_model_data_config(model)
    return model, InputForm(
        size=tuple(found["input_size"]),
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
        crop=found["crop_pct"],
        interpolation=found["interpolation"],
    )

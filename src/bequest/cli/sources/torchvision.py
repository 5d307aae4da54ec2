"""``torchvision:NAME``: size, normalisation and crop are those of its default weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from bequest.cli.inputs import InputForm
from bequest.cli.sources.base import source
from bequest.cli.sources.library import made_by_name, unknown


@source("torchvision:NAME")
def open_torchvision(word: str, published: bool) -> tuple[nn.Module, InputForm]:
    """``NAME`` or ``NAME,num_classes=10,...``; weights are its default ones.

    Raises:
        As :func:`made_by_name`; UsageError: torchvision has no such network.
    """
    return made_by_name("torchvision", word, published, library="torchvision.models", make=_make)


def _make(models: Any, name: str, published: bool, settings: dict[str, Any]) -> Any:
    if name not in models.list_models():
        raise unknown("torchvision", name, models.list_models())
    weights = models.get_model_weights(name).DEFAULT
    model = models.get_model(name, weights=weights if published else None, **settings)
    transforms = weights.transforms()
    crop = getattr(transforms, "crop_size", None)
    if crop is None:
        return model, InputForm()  # a detector's inputs, say; --size has to tell
    return model, InputForm(
        size=(len(transforms.mean), crop[0], crop[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        crop=crop[0] / transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
    )

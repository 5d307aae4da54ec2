"""``zoo:NAME``: the papers' networks, written in :mod:`bequest.zoo`."""

from __future__ import annotations

from torch import nn

from bequest import zoo
from bequest.cli.inputs import InputForm
from bequest.cli.sources.base import source
from bequest.errors import UsageError


@source("zoo:NAME")
def open_zoo(name: str, published: bool) -> tuple[nn.Module, InputForm]:
    """A network of the zoo, with random weights.

    Raises:
        UsageError: the zoo has no such network, or published weights are asked for.
    """
    entry = zoo.entry(name)
    if published:
        raise UsageError(
            f"zoo:{name}: networks of the zoo carry no weights; give trained ones with "
            "--weights FILE"
        )
    return zoo.create(name), InputForm.of(entry.preprocessing)

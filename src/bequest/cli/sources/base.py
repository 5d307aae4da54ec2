"""What a source of models is: it opens ``PREFIX:WORD``, and a file that registers it is enough."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from bequest.cli.inputs import InputForm

Source = Callable[[str, bool], tuple[nn.Module, InputForm]]
"""``(word, published)`` → the network and what it reads.

``word`` is what stands behind the prefix. ``published`` asks for the published weights, and the
source raises where there are none; else the weights may be random. A saved plan may name the word,
so that a source never runs code that the word points to.
"""

_SOURCES: dict[str, tuple[str, Source]] = {}


def source(form: str) -> Callable[[Source], Source]:
    """Files a source under the prefix of ``form``, which is shown to the user: ``"zoo:NAME"``.

    Raises:
        ValueError: it is of another form, or another source has the prefix.
    """
    prefix, colon, word = form.partition(":")
    if not (prefix and colon and word):
        raise ValueError(f"source of models: expected 'PREFIX:WORD', found {form!r}")

    def file(function: Source) -> Source:
        taken = _SOURCES.get(prefix, (form, function))[1]
        if taken.__module__ != function.__module__:
            raise ValueError(f"'{prefix}:' is taken by {taken.__module__}; choose another prefix")
        _SOURCES[prefix] = (form, function)
        return function

    return file


def find(spec: str) -> Callable[[bool], tuple[nn.Module, InputForm]] | None:
    """What opens ``spec``, published weights or not; None where no source has its prefix."""
    prefix, colon, word = spec.partition(":")
    if not colon or prefix not in _SOURCES:
        return None
    _, function = _SOURCES[prefix]
    return lambda published: function(word, published)


def forms() -> list[str]:
    """The words that can be opened, in alphabetical order."""
    return sorted(form for form, _ in _SOURCES.values())

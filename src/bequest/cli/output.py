"""Where results, notes and progress go."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Any, Self

from rich.console import Console, RenderableType


class Output:
    """Results on the standard output, as tables or as one JSON document; the rest on the error.

    Inside the ``with`` block whatever else is printed, by a user's model say, goes to the standard
    error, so that the standard output holds the results alone.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._results = sys.stdout
        self._redirection = contextlib.redirect_stdout(sys.stderr)

    def __enter__(self) -> Self:
        self._redirection.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._redirection.__exit__(*raised)

    def note(self, text: str) -> None:
        """One line for the person who waits or wonders."""
        Console(file=sys.stderr, highlight=False).print(
            text, style="dim", markup=False, soft_wrap=True
        )

    def waiting(self, text: str) -> None:
        """What is being done, for a person at a terminal."""
        if Console(stderr=True).is_terminal:
            self.note(f"{text} ...")

    def show(self, *items: RenderableType) -> None:
        """Tables and text with a line between them, unless JSON was asked for."""
        if not self._as_json:
            console = Console(file=self._results, highlight=False)
            for number, item in enumerate(items):
                if number:
                    console.print()
                console.print(item)

    def document(self, content: dict[str, Any]) -> None:
        """The whole result as JSON, if that was asked for; NaN and infinity become null."""
        if self._as_json:
            print(json.dumps(finite(content), indent=2, allow_nan=False), file=self._results)


def finite(value: Any) -> Any:
    """Plain values with null for NaN and infinity, which JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value

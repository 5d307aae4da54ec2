"""A progress bar that appears only where someone can see it."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import TypeVar

T = TypeVar("T")


def tracked(items: Iterable[T], description: str, sized: object, shown: bool) -> Iterable[T]:
    """``items``, with a bar on the standard error if ``shown`` and if that is a terminal.

    Args:
        items: what to iterate over.
        description: what the bar says.
        sized: gives the number of items where it has a length.
        shown: whether a bar is wanted.
    """
    if not shown:
        return items
    # Imported where it is needed: rich draws from Python's generator as it is imported.
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        return items
    total = len(sized) if isinstance(sized, Sized) else None
    return track(items, description, total=total, console=console, transient=True)

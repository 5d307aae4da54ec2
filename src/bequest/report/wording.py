"""Numbers and layers' names as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from bequest.measure import Latency


def count(value: float) -> str:
    """12345678 → "12.35 M"; the space between them does not break a line."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}\N{NO-BREAK SPACE}{unit}"
    return f"{value:.4g}"


def size(value: int) -> str:
    """Bytes: 3440560 → "3.441 MB"."""
    return f"{count(value)}B" if value >= 1000 else f"{value} B"


def percent(value: float) -> str:
    """93.75 → "93.75 %"."""
    return f"{value:.2f} %"


def exponential(loss: float) -> float:
    """A loss in nats as a perplexity; infinite where that is too large a number."""
    return math.exp(loss) if loss < 700 else math.inf


def perplexity(value: float) -> str:
    """8.1762 → "8.176"."""
    return f"{value:.4g}"


def milliseconds(value: float) -> str:
    """12.345 → "12.35 ms"."""
    return f"{value:.4g} ms"


def place(latency: Latency) -> str:
    """Where it was taken: "latency, cpu, 1 thread"."""
    if latency.device != "cpu":
        return f"latency, {latency.device}"
    return f"latency, cpu, {latency.threads} thread{'s' if latency.threads > 1 else ''}"


def change(before: float, after: float) -> str:
    """(100, 66.7) → "-33.3 %"; nothing where ``before`` is zero."""
    return f"{100 * (after / before - 1):+.1f} %" if before else ""


def nameless(text: str) -> str:
    """A text without its numbers: "layer1.0.conv2" → "layer*.*.conv*"."""
    return re.sub(r"\d+", "*", text)


def compact(names: Iterable[str]) -> str:
    """Names that differ in numbers alone as one: "layer1.{0-8}.conv{1,2}, layer2.0.conv1"."""
    return ", ".join(merged(names))


def merged(texts: Iterable[str]) -> list[str]:
    """Texts that differ in numbers alone as one, with what stands at each place in braces."""
    alike: dict[tuple[str, ...], list[list[str]]] = {}
    for text in dict.fromkeys(texts):
        words = tuple(re.split(r"\d+", text))
        alike.setdefault(words, []).append(re.findall(r"\d+", text))
    return [part for words, numbers in alike.items() for part in _joined(words, numbers)]


def _joined(words: tuple[str, ...], numbers: list[list[str]]) -> list[str]:
    """One text if every number occurs with every other; else several, split by one number."""
    places = [list(dict.fromkeys(column)) for column in zip(*numbers, strict=True)]
    if math.prod(map(len, places)) == len(numbers):
        filled = [*map(_range, places), ""]
        return ["".join(word + value for word, value in zip(words, filled, strict=True))]
    varying = [place for place, values in enumerate(places) if len(values) > 1]
    fewest = min(varying, key=lambda place: len(places[place]))
    return [
        text
        for value in places[fewest]
        for text in _joined(words, [row for row in numbers if row[fewest] == value])
    ]


def _range(values: list[str]) -> str:
    if len(values) == 1:
        return values[0]
    numbers = sorted(int(value) for value in values)
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{{{numbers[0]}-{numbers[-1]}}}"
    return f"{{{','.join(values)}}}"


def error(value: float | None) -> str:
    """A reconstruction error; a dash where nothing was handed on by intention."""
    return "-" if value is None else f"{value:.3f}"

"""From an option's text to its value; what can't be read is refused with what was expected."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import typer

from bequest import config
from bequest.artifact.folder import require_empty
from bequest.errors import UsageError
from bequest.execution.devices import usable

_MOST_TOKENS = 2**31


def options_given(context: typer.Context) -> frozenset[str]:
    """The long names of the options that stand on the command line, such as ``--ratio``."""
    sources = {
        max(option.opts, key=len): context.get_parameter_source(option.name or "")
        for option in context.command.params
    }
    return frozenset(
        name for name, source in sources.items() if source and source.name == "COMMANDLINE"
    )


def refuse_beside(option: str, others: Iterable[str], given: frozenset[str]) -> None:
    """Refuses options that ``option`` takes the place of, where that one is given.

    Raises:
        UsageError: one of them is given, too.
    """
    for other in others:
        if option in given and other in given:
            raise UsageError(f"{option} and {other} don't go together; leave one out")


def parse_out(out: Path | None, form: str, given: frozenset[str]) -> bool:
    """Whether ``-o`` is to become a folder for transformers, rather than one of this library.

    Raises:
        UsageError: ``--format`` is neither, or options don't go with it; the folder isn't empty.
    """
    if out is not None:
        require_empty(out)
    if form not in ("bequest", "hf"):
        raise UsageError(f"--format: expected bequest or hf, found '{form}'")
    if form == "bequest":
        return False
    refuse_beside("--format", ("--sparsity", "--strategy", "--scope"), given)
    if out is None:
        raise UsageError("--format says what -o saves; give -o FOLDER")
    return True


def require_data(data: object, given: frozenset[str]) -> None:
    """Refuses options that say something of images where none are given.

    Raises:
        UsageError: one of them stands without ``--data``.
    """
    for option in ("--limit", "--offset", "--batch-size", "--calibrate"):
        if data is None and option in given:
            other = ", or --text FILE" if option == "--calibrate" else ""
            raise UsageError(
                f"{option} says something of the images of --data; give --data PATH{other}"
            )


def parse_ratio(text: str) -> float | dict[str, float]:
    """``0.5``, or ``PATTERN=RATIO,PATTERN=RATIO`` in the order in which patterns are tried.

    Raises:
        UsageError: it is neither, a pattern is empty or given twice. The range is checked by
            :func:`bequest.prune`.
    """
    if "=" not in text:
        return _number(text, "--ratio", "a number in [0, 1) such as 0.5, or PATTERN=RATIO,...")
    ratios: dict[str, float] = {}
    for part in text.split(","):
        pattern, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not equals or not pattern:
            raise UsageError(
                f"--ratio: expected PATTERN=RATIO,... such as 'layer*.conv1=0.5,*=0', "
                f"found {part.strip()!r} in {text!r}"
            )
        if pattern in ratios:
            raise UsageError(f"--ratio: the pattern '{pattern}' is given twice in {text!r}")
        ratios[pattern] = _number(value, f"--ratio of '{pattern}'", "a number in [0, 1)")
    return ratios


def parse_ratios(text: str) -> tuple[float, ...]:
    """``0.3,0.5`` → ascending numbers in [0, 1), each once.

    Raises:
        UsageError: an item is no such number.
    """
    expected = "numbers in [0, 1) such as 0.3,0.5,0.7"
    ratios = {_number(item, "--ratios", expected) for item in text.split(",")}
    outside = [ratio for ratio in ratios if not 0 <= ratio < 1]
    if outside:
        raise UsageError(f"--ratios: expected {expected}, found {outside[0]:g}")
    return tuple(sorted(ratios))


def parse_seeds(text: str) -> tuple[int, ...]:
    """``0,1,2`` → whole numbers in this order, each once.

    Raises:
        UsageError: an item is no such number.
    """
    items = [item.strip() for item in text.split(",")]
    if not all(item.isdecimal() for item in items):
        raise UsageError(f"--seeds: expected whole numbers such as 0,1,2, found {text!r}")
    return tuple(dict.fromkeys(map(int, items)))


def parse_numbers(text: str, option: str, expected: str) -> tuple[float, ...]:
    """``0.01,0.05`` → numbers in this order.

    Raises:
        UsageError: an item is no finite number.
    """
    return tuple(_number(item, option, expected) for item in text.split(","))


def parse_names(text: str, option: str) -> tuple[str, ...]:
    """``none,lbyl`` → names in this order, each once.

    Raises:
        UsageError: an item is empty.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if "" in names:
        raise UsageError(f"{option}: expected names separated by commas, found {text!r}")
    return names


def parse_config(text: str, kind: str, option: str) -> Any:
    """``synthetic``, or ``synthetic(images=64, source=pink)`` → the config object of that name.

    Raises:
        UsageError: it can't be read, or there is no such name, field or value.
    """
    name, opened, rest = text.strip().partition("(")
    fields = {}
    if opened:
        try:
            match ast.parse(f"_({rest}", mode="eval").body:
                case ast.Call(func=ast.Name(), args=[], keywords=named):
                    fields = {str(one.arg): _literal(one.value) for one in named}
                case _:
                    raise ValueError("something else than one call with names")
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
            raise UsageError(
                f"{option}: expected NAME or NAME(FIELD=VALUE, ...), found {text!r}"
            ) from error
    try:
        return config.from_json(kind, {**fields, "name": name, "version": config.VERSION})
    except TypeError as error:  # a field without a default is missing
        raise UsageError(f"{option}: {name}: {error}") from error


def _literal(node: ast.expr) -> Any:
    """A number, text, tuple or the like; a bare word is a text."""
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def parse_size(text: str, channels: int = 3) -> tuple[int, ...]:
    """``3x32x32`` → (3, 32, 32); ``32`` → (channels, 32, 32).

    Raises:
        UsageError: anything else.
    """
    parts = text.lower().split("x")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise UsageError(
            f"--size: expected the shape of one input, 3x32x32, or 32 for a square image, "
            f"found {text!r}"
        )
    sizes = tuple(int(part) for part in parts)
    return (channels, *sizes, *sizes) if len(sizes) == 1 else sizes


def parse_tokens(text: str) -> tuple[int, int]:
    """``64/512`` → 64 tokens of a vocabulary of 512.

    Raises:
        UsageError: anything else.
    """
    parts = text.split("/")
    if len(parts) != 2 or not all(
        part.isascii() and part.isdigit() and 0 < int(part) <= _MOST_TOKENS for part in parts
    ):
        raise UsageError(
            f"--size: expected LENGTH/VOCABULARY for tokens, such as 64/512, found {text!r}"
        )
    return int(parts[0]), int(parts[1])


def parse_channel_values(text: str, option: str, channels: int) -> tuple[float, ...]:
    """``0.49,0.48,0.45`` → one number per channel; a single one serves all channels.

    Raises:
        UsageError: not one number, and not one per channel.
    """
    expected = f"one number, or {channels} separated by commas"
    values = tuple(_number(item, option, expected) for item in text.split(","))
    if len(values) not in (1, channels):
        raise UsageError(f"{option}: expected {expected}, found {text!r}")
    return values * channels if len(values) == 1 else values


def parse_device(text: str) -> torch.device:
    """A device that PyTorch can use here.

    Raises:
        UsageError: no such device on this machine.
    """
    return usable(text, "--device")


def _number(text: str, option: str, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{option}: expected {expected}; found {text.strip()!r}")
    return value

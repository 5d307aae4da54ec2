"""Strict readers of JSON values: each returns the value in its type or says what was expected."""

from __future__ import annotations

import itertools
import re
import reprlib
import sys
import unicodedata
from typing import NoReturn

from bequest.errors import ArtifactError

_LARGEST = 2**63 - 1
_DEEPEST = 16


def refuse(where: str, expected: str, found: object) -> NoReturn:
    """Raises ArtifactError with the place, what was expected and a shortened ``found``."""
    raise ArtifactError(f"{where}: expected {expected}, found {reprlib.repr(found)}")


def record(value: object, where: str, *names: str) -> list[object]:
    """The values of an object that has exactly these fields, in the order of ``names``."""
    held = mapping(value, where)
    missing = [name for name in names if name not in held]
    unknown = [name for name in held if name not in names]
    if missing or unknown:
        found = {"missing": missing, "unknown": unknown}
        refuse(where, f"the fields {', '.join(names)}", found)
    return [held[name] for name in names]


def mapping(value: object, where: str) -> dict[str, object]:
    """An object; its keys are checked as text."""
    if not isinstance(value, dict):
        refuse(where, "an object", value)
    return {text(key, f"{where}, a name"): held for key, held in value.items()}


def sequence(value: object, where: str) -> list[object]:
    """A list."""
    if not isinstance(value, list):
        refuse(where, "a list", value)
    return value


def text(value: object, where: str) -> str:
    """A string without control characters (other than tab and new line) or lone surrogates."""
    if not isinstance(value, str):
        refuse(where, "a string", value)
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in value if sign not in "\n\t"):
        refuse(where, "a string without control characters", value)
    return value


def texts(value: object, where: str) -> tuple[str, ...]:
    """A list of strings."""
    return tuple(text(item, where) for item in sequence(value, where))


def digest(value: object, where: str) -> str:
    """A SHA-256 as lower-case hexadecimal digits."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        refuse(where, "64 hexadecimal digits", value)
    return value


def integer(value: object, where: str, least: int = 0) -> int:
    """A whole number from ``least`` to 2⁶³ − 1; a boolean is none."""
    if type(value) is not int or not least <= value <= _LARGEST:
        refuse(where, f"a whole number of at least {least}", value)
    return value


def integers(value: object, where: str, least: int = 0) -> tuple[int, ...]:
    """A list of whole numbers, each from ``least`` to 2⁶³ − 1."""
    return tuple(integer(item, where, least) for item in sequence(value, where))


def ascending(values: tuple[int, ...], where: str) -> tuple[int, ...]:
    """The same numbers, each larger than the one before."""
    for left, right in itertools.pairwise(values):
        if left >= right:
            refuse(where, "ascending numbers, each once", [left, right])
    return values


def finite(value: object, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(where, "a number", value)
    if not abs(value) <= sys.float_info.max:  # also True for NaN
        refuse(where, "a finite number", value)
    return float(value)


def plain(value: object, where: str, depth: int = 0) -> object:
    """Any JSON value of finite numbers and clean strings, nested at most 16 deep."""
    if depth > _DEEPEST:
        refuse(where, f"values nested at most {_DEEPEST} deep", value)
    if isinstance(value, dict):
        held = mapping(value, where)
        return {key: plain(item, f"{where}.{key}", depth + 1) for key, item in held.items()}
    if isinstance(value, list):
        return [plain(item, where, depth + 1) for item in value]
    if isinstance(value, str):
        return text(value, where)
    if isinstance(value, float):
        return finite(value, where)
    if value is not None and not isinstance(value, bool):
        integer(value, where, -_LARGEST)
    return value

"""The registry of methods, and the round trip of their config objects to JSON.

A method (criterion, restorer) is a frozen dataclass: its fields are its hyper-parameters, its
``name`` is the string that the Python call, the command line and plan.json use for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from bequest.errors import UnknownNameError, UsageError

VERSION = 1
"""Version of the JSON form; raised when a field changes its meaning."""

_REGISTRY: dict[str, dict[str, type]] = {}

T = TypeVar("T", bound=type)


def register(kind: str, name: str) -> Callable[[T], T]:
    """Class decorator: files a config class under ``kind`` ("criterion", ...) and ``name``."""

    def file(cls: T) -> T:
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"{cls.__name__} must be a dataclass to be registered")
        cls.name = name  # type: ignore[attr-defined]
        _REGISTRY.setdefault(kind, {})[name] = cls
        return cls

    return file


def names(kind: str) -> list[str]:
    """The registered names of ``kind``, in the order of registration."""
    return list(_REGISTRY.get(kind, {}))


def resolve(kind: str, given: object, base: type | tuple[type, ...] = ()) -> Any:
    """Turns a name into its config object with defaults; a config object passes through.

    Args:
        kind: "criterion" or "restorer".
        given: a registered name, or an instance of a registered class.
        base: instances of these classes are taken too: methods of the user's own need no name.

    Raises:
        UnknownNameError: the name is not registered; the message suggests the nearest.
        UsageError: ``given`` is neither a name nor an instance of a registered class.
    """
    known = _REGISTRY.get(kind, {})
    if isinstance(given, str):
        if given not in known:
            raise UnknownNameError(kind, given, known)
        return known[given]()
    if type(given) in known.values() or isinstance(given, base):
        return given
    if isinstance(given, type) and given in known.values():
        raise UsageError(f"{kind}: expected an object, found the class; write {given.__name__}()")
    raise UsageError(
        f"{kind}: expected a name or a config object, found {type(given).__name__}. "
        f"Names: {', '.join(known)}."
    )


def to_json(config: Any) -> dict[str, Any]:
    """The JSON form of a config object: its name, the version and its fields."""
    return {"name": config.name, "version": VERSION, **dataclasses.asdict(config)}


def from_json(kind: str, data: Mapping[str, Any]) -> Any:
    """Rebuilds a config object from :func:`to_json`'s form.

    Raises:
        UsageError: another version, an unknown name or unknown fields.
    """
    fields = dict(data)
    name, version = fields.pop("name", None), fields.pop("version", None)
    if version != VERSION:
        raise UsageError(f"{kind} config: expected version {VERSION}, found {version!r}")
    known = _REGISTRY.get(kind, {})
    if name not in known:
        raise UnknownNameError(kind, str(name), known)
    allowed = {field.name for field in dataclasses.fields(known[name])}
    unknown = sorted(fields.keys() - allowed)
    if unknown:
        raise UsageError(f"{kind} '{name}' has no field {unknown}; fields: {sorted(allowed)}")
    return known[name](**fields)

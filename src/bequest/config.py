"""The registry of methods, and the round trip of their config objects to JSON.

A method (criterion, restorer) is a frozen dataclass: its fields are its hyper-parameters, its
``name`` is the string that the Python call, the command line and plan.json use for it. A file in a
package of methods is enough: the package imports all its files (:func:`discover`). A method of the
user's own needs no registration and need be no dataclass: then plan.json describes what it can't
hold.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from numbers import Integral, Real
from typing import Any, ClassVar, Self, TypeVar

from torch import Tensor

from bequest.errors import UnknownNameError, UsageError

VERSION = 1
"""Version of the JSON form; raised when a field changes its meaning."""

_LARGEST = 2**63 - 1
_DEEPEST = 8

_REGISTRY: dict[str, dict[str, type]] = {}

T = TypeVar("T", bound=type)


class Method:
    """What is named and configured: its fields are its hyper-parameters, checked where it is made.

    A class that isn't registered goes by its own name.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Gives the class its name; registering it gives it another."""
        super().__init_subclass__(**kwargs)
        cls.name = cls.__dict__.get("name", cls.__name__)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuses a class that lacks methods (:func:`require_complete`)."""
        require_complete(cls)
        return super().__new__(cls)

    def require_positive(self, field: str) -> None:
        """Raises UsageError unless a field is a positive and finite number."""
        value = getattr(self, field)
        if not 0 < number(value) < math.inf:
            raise UsageError(f"{self.name}: expected {field} > 0, found {value!r}")


def number(value: object) -> float:
    """The number that a value is; NaN, which lies in no range, for texts, truth and all else."""
    return math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)


def register(kind: str, name: str) -> Callable[[T], T]:
    """Class decorator: files a config class under ``kind`` ("criterion", ...) and ``name``.

    Raises:
        TypeError: the class is no dataclass, or lacks methods; the message says which.
        ValueError: another class has the name.
    """

    def file(cls: T) -> T:
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"{cls.__name__} must be a dataclass to be registered")
        require_complete(cls)
        known = _REGISTRY.setdefault(kind, {})
        taken = known.get(name, cls)
        if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            place = f"{taken.__module__}.{taken.__qualname__}"
            raise ValueError(f"{kind} '{name}' is {place}; give {cls.__name__} another name")
        cls.name = name  # type: ignore[attr-defined]
        known[name] = cls
        return cls

    return file


def require_complete(cls: type) -> None:
    """Refuses a class that lacks methods, in words that say what to write.

    Raises:
        TypeError: the message has the signatures of the methods, and the base classes that would
            have them if there are any: those that ask for nothing but what the class has.
    """
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if not missing:
        return
    methods = ((name, getattr(cls, name)) for name in missing)
    lines = (f"\n    def {name}{inspect.signature(one)}" for name, one in methods)
    bases = sorted({base.__name__ for base in _below(*cls.__bases__) if _has_all(cls, base)})
    other = f"\nor derive it from {' or '.join(bases)}" if bases else ""
    raise TypeError(f"{cls.__name__} is incomplete; write{''.join(lines)}{other}".replace("'", ""))


def _below(*classes: type) -> list[type]:
    """Their children, and those below."""
    children: list[type] = []
    for cls in classes:
        children += cls.__subclasses__()
    return [*children, *_below(*children)] if children else []


def _has_all(cls: type, base: type) -> bool:
    """Whether ``cls`` has what is asked for by ``base``, which asks for something."""
    wanted: frozenset[str] = getattr(base, "__abstractmethods__", frozenset())
    return bool(wanted) and wanted <= vars(cls).keys()


def discover(package: str, path: Iterable[str]) -> None:
    """Imports every module of a package, so that whatever they register can be named.

    What a file raises as it is imported is raised here, with a note that names the file: a method
    that can't be had is not left out silently. To be called in the package's ``__init__`` as
    ``discover(__name__, __path__)``.
    """
    for module in pkgutil.iter_modules(path):
        try:
            import_module(f"{package}.{module.name}")
        except Exception as error:
            error.add_note(f"It was raised as {package}.{module.name} was imported.")
            raise


def names(kind: str) -> list[str]:
    """The registered names of ``kind``, in alphabetical order."""
    return sorted(_REGISTRY.get(kind, {}))


def named(kind: str, name: str) -> type:
    """The class that is registered under ``kind`` and ``name``.

    Raises:
        UnknownNameError: there is none; the message suggests the nearest.
    """
    known = _REGISTRY.get(kind, {})
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


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
        return _with_defaults(kind, named(kind, given))
    if type(given) in known.values() or isinstance(given, base):
        return given
    bases = base if isinstance(base, tuple) else (base,)
    if isinstance(given, type) and (given in known.values() or issubclass(given, bases)):
        raise UsageError(f"{kind}: expected an object, found the class; write {given.__name__}()")
    own = f"; or derive a class of your own from {bases[0].__name__}" if bases else ""
    raise UsageError(
        f"{kind}: expected a name or a config object, found {type(given).__name__}. "
        f"Names: {', '.join(names(kind))}{own}"
    )


def later(default: Any) -> Any:
    """A field that came after plans had been written: at its default they stay what they were."""
    return dataclasses.field(default=default, metadata={"later": True})


def _with_defaults(kind: str, cls: type) -> Any:
    """An object of the class without arguments.

    Raises:
        UsageError: fields of it have no default.
    """
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.init and field.default is field.default_factory is dataclasses.MISSING
    ]
    if required:
        given = ", ".join(f"{name}=..." for name in required)
        raise UsageError(
            f"{kind} '{cls.name}': it has no default for {', '.join(required)}; in Python give "  # type: ignore[attr-defined]
            f"{cls.__name__}({given})"
        )
    return cls()


def to_json(config: Any) -> dict[str, Any]:
    """The JSON form of a config object: its name, the version and its fields.

    Fields that are :func:`later` are left out at their defaults. Of an object of another class than
    those registered, its attributes. Values that JSON can't hold are described in words: functions
    by name, tensors by shape.
    """
    if dataclasses.is_dataclass(config):
        fields = {field: getattr(config, field.name) for field in dataclasses.fields(config)}
        held = {
            field.name: value
            for field, value in fields.items()
            if not (field.metadata.get("later") and value == field.default)
        }
    else:
        held = {name: value for name, value in _attributes(config) if not name.startswith("_")}
    return {**_plain(held), "name": str(config.name), "version": VERSION}


def _attributes(config: Any) -> list[tuple[str, Any]]:
    """What an object keeps, in slots or not."""
    slots = (name for cls in type(config).__mro__ for name in getattr(cls, "__slots__", ()))
    found = {name: getattr(config, name) for name in slots if hasattr(config, name)}
    return [*{**found, **getattr(config, "__dict__", {})}.items()]


def _plain(value: Any, depth: int = 0) -> Any:
    """The value in JSON's kinds, as far as plan.json takes them, or in words."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [_plain(each, depth + 1) for each in value]
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {str(key): _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, str):
        return value if value.isprintable() else ascii(value)
    if isinstance(value, Real):
        return _number(value)
    return None if value is None else _described(value)


def _number(value: Any) -> bool | int | float | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        whole = int(value)
        return whole if abs(whole) <= _LARGEST else str(whole)
    return float(value) if math.isfinite(value) else str(float(value))


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor of {str(value.dtype).removeprefix('torch.')}, shape {tuple(value.shape)}"
    named = value if hasattr(value, "__qualname__") else type(value)
    return ".".join(filter(None, (named.__module__, named.__qualname__)))


def from_json(kind: str, data: Mapping[str, Any]) -> Any:
    """Rebuilds a config object from :func:`to_json`'s form.

    Raises:
        UsageError: another version, an unknown name or unknown fields.
    """
    fields = dict(data)
    name, version = fields.pop("name", None), fields.pop("version", None)
    if version != VERSION:
        raise UsageError(f"{kind} config: expected version {VERSION}, found {version!r}")
    cls: Any = named(kind, str(name))
    allowed = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(fields.keys() - allowed)
    if unknown:
        raise UsageError(f"{kind} '{name}' has no field {unknown}; fields: {sorted(allowed)}")
    return cls(**fields)

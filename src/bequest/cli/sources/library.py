"""Networks that another library makes: its import, its settings, and what can go wrong.

Weights are read without pickle: as safetensors, or by ``torch.load`` restricted to tensors.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bequest.cli.inputs import InputForm
from bequest.errors import BequestError, MissingExtraError, ModelError, UsageError

_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"

Make = Callable[[Any, str, bool, dict[str, Any]], tuple[nn.Module, InputForm]]
"""``(library, name, published, settings)`` → the network and what it reads."""


def made_by_name(
    prefix: str, word: str, published: bool, *, library: str, make: Make
) -> tuple[nn.Module, InputForm]:
    """A network of a library of images' networks, by name.

    Args:
        prefix: the source's.
        word: ``NAME`` or ``NAME,KEY=NUMBER,...``.
        published: fetch the published weights; else they are random.
        library: the module to import, of the extra ``vision``.
        make: makes the network with it.

    Raises:
        UsageError: a setting can't be read.
        MissingExtraError: the library is not installed.
        ModelError: the weights can't be fetched, or the library refuses.
    """
    spec = f"{prefix}:{word}"
    module = imported(library, "vision", spec)
    name, settings = _settings(word)
    with made(spec, published):
        return make(module, name, published, settings)


def imported(module: str, extra: str, spec: str) -> Any:
    """The library; it is imported only where a MODEL asks for it."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or package, extra, f"MODEL '{spec}'") from error
    except Exception as error:  # e.g. torchvision beside a PyTorch that it wasn't built for
        raise ModelError(
            f"{spec}: {package} is installed but can't be imported beside PyTorch "
            f"{torch.__version__}: {reason(error)}. Install the builds that belong together"
        ) from error


def _settings(word: str) -> tuple[str, dict[str, Any]]:
    """``NAME,KEY=VALUE,...`` → the name, and values that are numbers, booleans or None."""
    name, *pairs = word.split(",")
    settings = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if not key.isidentifier() or not isinstance(value, int | float | None):
            raise UsageError(
                f"MODEL: expected {name},KEY=NUMBER such as {name},num_classes=10; found {pair!r}"
            )
        settings[key] = value
    return name, settings


def unknown(prefix: str, name: str, known: Iterable[str]) -> UsageError:
    """The error that a library has no network of that name; it suggests the nearest."""
    near = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return UsageError(f"MODEL: {prefix} has no network '{name}'.{hint}")


@contextmanager
def made(spec: str, published: bool) -> Iterator[None]:
    """Fetched files are read as tensors alone; what goes wrong is said in one line."""
    before = os.environ.get(_TENSORS_ONLY)
    os.environ[_TENSORS_ONLY] = "1"
    try:
        yield
    except BequestError:
        raise
    except Exception as error:
        if not published:
            raise ModelError(f"{spec} can't be made: {reason(error)}") from error
        raise ModelError(
            f"{spec}: its published weights can't be fetched or read: {reason(error)}. Give "
            "trained weights with --weights FILE (.safetensors or .pth)"
        ) from error
    finally:
        if before is None:
            del os.environ[_TENSORS_ONLY]
        else:
            os.environ[_TENSORS_ONLY] = before


def reason(error: BaseException) -> str:
    """Its type and first line; of an import that failed, those of what made it fail."""
    while isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return f"{type(error).__name__}: {next(filter(None, lines), '')[:200]}".rstrip(". ")

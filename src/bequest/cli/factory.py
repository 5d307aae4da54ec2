"""``FILE.py:FACTORY``: a model made by the user's own code."""

from __future__ import annotations

import difflib
import importlib.util
import platform
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

from bequest.errors import ModelError, UsageError


def make_model(path: Path, name: str) -> nn.Module:
    """Runs the file and calls ``name()`` in it.

    Modules that lie beside the file can be imported, as when Python runs it.

    Raises:
        UsageError: no such file, no such callable in it, or it returns something else.
        ModelError: the file or the factory raises; the message has the line.
    """
    if not path.is_file():
        raise UsageError(f"MODEL: there is no file {path}")
    with _reported(path, f"running {path}"):
        module = _run(path)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise UsageError(_no_factory(path, name, module))
    with _reported(path, f"{path}:{name}()"):
        model = factory()
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{path}:{name}() returned {type(model).__name__}; expected a torch.nn.Module"
        )
    return model


def run_files(paths: Iterable[Path]) -> None:
    """Runs files of the user's, so that objects of their classes can be unpacked.

    Raises:
        UsageError: there is no such file here.
        ModelError: a file raises; the message has the line.
    """
    for path in paths:
        if not path.is_file():
            raise UsageError(f"MODEL: there is no file {path.resolve()} on {platform.node()}")
        with _reported(path, f"running {path}"):
            _run(path)


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_bequest_{path.stem}", path)
    assert spec is not None  # the suffix is .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    return module


def _no_factory(path: Path, name: str, module: ModuleType) -> str:
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and value.__module__ == module.__name__
    ]
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listed = f" It defines: {', '.join(own)}." if own else " It defines no function or class."
    return f"{path} has no function or class '{name}'.{hint}{listed}"


@contextmanager
def _reported(path: Path, doing: str) -> Iterator[None]:
    """What the user's code raises, in one line with its place in the file."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path) or Path(frame.filename) == path.resolve()
        ]
        if isinstance(error, SyntaxError) and error.lineno is not None:
            lines.append(error.lineno)
        where = f", line {lines[-1]}" if lines else ""
        first = next(iter(str(error).splitlines()), "")
        raise ModelError(f"{doing} failed{where}: {type(error).__name__}: {first}") from error

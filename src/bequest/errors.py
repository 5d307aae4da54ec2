"""Exceptions and warnings of the library: one family of errors, two exit codes.

A message says what was expected, what was found, and what to do. The command line prints the
message alone, without a traceback, and exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BequestError(Exception):
    """Anything that the library refuses or fails to do. ``exit_code`` 1: the work failed."""

    exit_code = 1


class UsageError(BequestError, ValueError):
    """The call was wrong: a value out of range, an unknown name, an unreadable argument."""

    exit_code = 2


class ModelError(BequestError):
    """The model can't be served: it can't be exported, or something in it is refused by name."""


class DataError(BequestError):
    """The data can't be read: an empty folder, a truncated file, images of no known form."""


class ArtifactError(BequestError):
    """A saved artefact, or a weights file, is damaged, altered or made for another network."""


class NothingPrunedWarning(UserWarning):
    """A call that asked for pruning removed no channel; the message says why."""


class MissingExtraError(BequestError):
    """An optional dependency is needed and is not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'bequest[{extra}]'"
        )


class InputWarning(UserWarning):
    """Inputs that a network takes but was hardly trained on: their scale is another one."""


class UnknownNameError(UsageError):
    """A name that no registry holds; the message suggests the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        super().__init__(f"unknown {kind} '{name}'.{hint} Known: {', '.join(known)}.")

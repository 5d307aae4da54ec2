"""The plan: what leaves a network, what is handed on, what was refused and why. Plain JSON."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from bequest._version import __version__
from bequest.surgery.operation import Surgery

Form = Literal["module", "program"]

VERSION = 1
"""Version of the JSON form of a plan: 1 is that of the first release, 0.1.

A reader takes the fields of its own version, all of them and no others, so that it never guesses
at what a field that it misses or doesn't know would change. Once a form is released, a field that
is added, removed or read in another way takes the next number.
"""


def versions() -> dict[str, str]:
    """Of bequest, torch and Python, as a plan that is made now records them."""
    return {
        "bequest": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class GroupPlan:
    """What happens to one group of channels.

    Attributes:
        name: the group's name: its first producer.
        kind: "inner" or "residual".
        producers: names of the layers that write the channels.
        consumers: names of the layers that read them.
        size: number of channels in the dense network.
        removed: indices of the channels that leave, ascending.
        restored_by: name of the restorer that handed them on; "none" where they leave plainly.
        reconstruction_error: mean relative error of the removed filters written by kept ones (see
            :func:`bequest.restorers.weight_space.reconstruction_error`); after a walk the relative
            error ‖dense − pruned‖ / ‖dense − mean‖ of the outputs of the layers behind, the worst
            of them, on inputs that were held back from the fit (of the sum, where such a layer
            makes up for what the branch lacks that its output is added to); None where plainly
            pruned.
        notes: everything worth knowing: clamped widths, why plainly pruned, inexact borders.
        unrestored_error: after a regression, the same error had the weights stayed as they were.
        predicted_error: the same as it was predicted from the dense network alone, where channels
            were ranked or allocated by what layers see.
        condition: condition number of the regression's ridged Gram, the worst of the layers behind.
        ridge: the regression's ridge, relative to the mean variance of a layer's inputs; raised
            where there were fewer samples than unknowns.
    """

    name: str
    kind: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    size: int
    removed: tuple[int, ...]
    restored_by: str
    reconstruction_error: float | None
    notes: tuple[str, ...]
    unrestored_error: float | None = None
    predicted_error: float | None = None
    condition: float | None = None
    ridge: float | None = None

    @property
    def kept(self) -> int:
        """Number of channels that stay."""
        return self.size - len(self.removed)


@dataclass(frozen=True)
class Refusal:
    """A group that was not pruned although the call asked for it, or that can't be pruned."""

    group: str
    size: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """All that pruning does to a network, in a form that can be saved and replayed.

    Where a network was pruned in several steps its plan leads from the dense network to the last
    one, whatever happened to the weights in between.

    Attributes:
        architecture: fingerprint of the dense network (names, shapes and ties of its tensors).
        recipe: the call: ratio, criterion, restorer, seed, ...; of the last step, with those of
            the steps before it under "earlier".
        versions: of bequest, torch and Python.
        groups: what happens to each group that loses channels.
        refused: what stays as it is, and why; in the last step.
        surgery: cuts, attributes and new biases, replayed on a fresh instance when loading.
        form: "module": an instance of the dense network's class holds the pruned one. "program":
            sizes in its code don't let it; the traced operators are saved beside the tensors.
    """

    architecture: str
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]
    groups: tuple[GroupPlan, ...]
    refused: tuple[Refusal, ...]
    surgery: Surgery
    form: Form = "module"

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values, with the version of the form."""
        return {"version": VERSION, **dataclasses.asdict(self)}

"""Saves a network without what pruning took, so that :func:`bequest.load` reads it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from bequest.artifact import store
from bequest.artifact.fingerprint import fingerprint
from bequest.artifact.lineage import continued
from bequest.artifact.plan import Plan, versions
from bequest.execution.modules import require_module
from bequest.hypersphere.convert import deconvert
from bequest.hypersphere.layers import CosineClassifier, Hyperspherical
from bequest.sparse.forms import forms_of
from bequest.surgery.operation import Surgery


def save(
    directory: str | os.PathLike[str],
    module: nn.Module,
    recipe: Mapping[str, Any] | None = None,
    *,
    beside: str | None = None,
) -> None:
    """Writes ``model.safetensors`` and ``plan.json`` into a new or empty folder.

    Weights with zeros between them take a bit per place and the bytes of the others. A network
    that is still on the hypersphere is saved as the plain one that computes the same.
    ``bequest.load(directory, Net())`` gives the saved network for a fresh instance of the plain
    one, equal to the bit.

    Args:
        directory: where to.
        module: plain, converted, pruned or recovered.
        recipe: how it was made, for the plan; JSON values.
        beside: name of something that may lie in the folder already.

    Raises:
        UsageError: the folder has other files in it.
        ModelError: a hyperspherical layer has no plain one that computes the same.
        ArtifactError: the files can't be written.
    """
    require_module(module)
    if any(isinstance(part, Hyperspherical | CosineClassifier) for part in module.modules()):
        module = deconvert(module)
    plain = deconvert(module)
    plan = Plan(
        architecture=fingerprint(plain),
        recipe={**(recipe or {}), "forms": forms_of(module)},
        versions=versions(),
        groups=(),
        refused=(),
        surgery=Surgery((), (), ()),
    )
    store.save(directory, module, continued(plain, plan).plan, beside=beside)

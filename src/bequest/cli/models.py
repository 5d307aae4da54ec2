"""From the word MODEL to a network with its weights and the form of its input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bequest import zoo
from bequest.artifact import load, load_plan
from bequest.cli.factory import make_model
from bequest.cli.inputs import InputForm
from bequest.cli.sources import find, forms
from bequest.errors import ArtifactError, UsageError

_DEEPEST = 8


@dataclass(frozen=True)
class Opened:
    """A network that the command line opened.

    Attributes:
        model: the network, in evaluation mode.
        spec: the word that opens the dense network again (without its weights); of a program, the
            folder that it was saved in.
        form: what it reads, as far as the word tells.
        base: what ``--model`` has to say when an artefact made from it is opened; None where the
            artefact's plan says enough.
        dense: of a program, the word that it was made from.
    """

    model: nn.Module
    spec: str
    form: InputForm
    base: str | None = None
    dense: str | None = None


def open_model(
    spec: str,
    *,
    weights: Path | None = None,
    base: str | None = None,
    device: torch.device,
    trained: bool = True,
) -> Opened:
    """Opens MODEL and loads its weights.

    Args:
        spec: MODEL as the user wrote it.
        weights: a weights file to load into it.
        base: the dense network of a saved folder, where its plan does not tell.
        device: where the network is put.
        trained: refuse a network whose weights would be random.

    Raises:
        UsageError: MODEL is of no known form, or options don't go with it.
        ModelError: the user's code fails.
        ArtifactError: the folder or the weights file is damaged or for another network.
    """
    folder = _folder(spec)
    if folder is None and base is not None:
        raise UsageError(f"--model goes with a folder that bequest saved, not with {spec}")
    if folder is not None and weights is not None:
        raise UsageError(f"--weights: {spec} is a saved folder and holds its own weights")
    published = trained and weights is None
    opened = _open_dense(spec, published) if folder is None else _open_saved(folder, base)
    if weights is not None:
        zoo.load_weights(opened.model, weights)
    opened.model.to(device).eval()
    return opened


def _folder(spec: str) -> Path | None:
    return Path(spec) if spec and Path(spec).is_dir() else None


def _open_dense(spec: str, published: bool = False) -> Opened:
    """A dense network: with its published weights where asked, else they may be random."""
    if (opens := find(spec)) is not None:
        model, form = opens(published)
        return Opened(model, spec, form)
    file, colon, factory = spec.rpartition(":")
    if colon and file.endswith(".py"):
        return Opened(make_model(Path(file), factory), spec, InputForm(), base=spec)
    hint = ""
    if spec in zoo.names():
        hint = f" Did you mean 'zoo:{spec}'?"
    elif spec.endswith(".py"):
        hint = f" Name the function in it that makes the network: '{spec}:FACTORY'."
    raise UsageError(
        f"MODEL: expected {', '.join(forms())}, FILE.py:FACTORY, or a folder that bequest saved; "
        f"found {spec!r}, which is none of them.{hint}"
    )


def _open_saved(folder: Path, base: str | None, depth: int = 0) -> Opened:
    """Rebuilds the dense network of an artefact and loads the artefact into it.

    The plan may name a network of the zoo or of a library or, where an artefact was pruned again
    and its plan doesn't hold the earlier steps, a folder. A file of code is never run because a
    plan names it. A program needs none of these.
    """
    plan = load_plan(folder)
    recipe = plan.recipe
    form = InputForm.from_json(recipe["input"]) if "input" in recipe else InputForm()
    named = recipe.get("model")
    if plan.form == "program":
        made_from = named if isinstance(named, str) else None
        return Opened(load(folder), str(folder.resolve()), form, dense=made_from)
    if depth > _DEEPEST:
        raise ArtifactError(f"{folder}: expected a dense network at the end of its plan's models")
    if isinstance(named, str) and _folder(named) is not None:
        dense = _open_saved(Path(named), base, depth + 1)
    elif base is not None:
        dense = _open_dense(base)
    elif isinstance(named, str) and find(named) is not None:
        dense = _open_dense(named)
    else:
        raise UsageError(_base_needed(folder, named))
    return Opened(load(folder, dense.model), dense.spec, form, dense.base)


def _base_needed(folder: Path, named: object) -> str:
    if isinstance(named, str):
        return (
            f"{folder} was made from '{named}'. Code is never run because a saved plan names it: "
            f"if you trust it, say so with --model {named}"
        )
    return (
        f"{folder}: its plan does not say which network it was made from; "
        "give it with --model zoo:NAME or --model FILE.py:FACTORY"
    )

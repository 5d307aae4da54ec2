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
from bequest.cli.libraries import open_hugging_face, open_timm, open_torchvision
from bequest.errors import ArtifactError, UsageError

_FORMS = (
    "zoo:NAME, timm:NAME, torchvision:NAME, hf:ID, FILE.py:FACTORY, or a folder that bequest saved"
)
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
        carries_weights: False where its values are random, as a network's of the zoo are.
    """

    model: nn.Module
    spec: str
    form: InputForm
    base: str | None = None
    carries_weights: bool = True


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
    elif trained and not opened.carries_weights:
        raise UsageError(
            f"{spec}: networks of the zoo carry no weights; give trained ones with --weights FILE"
        )
    opened.model.to(device).eval()
    return opened


def _folder(spec: str) -> Path | None:
    return Path(spec) if spec and Path(spec).is_dir() else None


def _open_dense(spec: str, published: bool = False) -> Opened:
    """A dense network: with its published weights where asked and where there are some."""
    prefix, colon, rest = spec.partition(":")
    if colon and prefix == "zoo":
        form = InputForm.of(zoo.entry(rest).preprocessing)
        return Opened(zoo.create(rest), spec, form, carries_weights=False)
    if colon and prefix in _LIBRARIES:
        model, form = _LIBRARIES[prefix](rest, published)
        return Opened(model, spec, form, carries_weights=published)
    file, colon, factory = spec.rpartition(":")
    if colon and file.endswith(".py"):
        return Opened(make_model(Path(file), factory), spec, InputForm(), base=spec)
    hint = ""
    if spec in zoo.names():
        hint = f" Did you mean 'zoo:{spec}'?"
    elif spec.endswith(".py"):
        hint = f" Name the function in it that makes the network: '{spec}:FACTORY'."
    raise UsageError(f"MODEL: expected {_FORMS}; found {spec!r}, which is none of them.{hint}")


_LIBRARIES = {"timm": open_timm, "torchvision": open_torchvision, "hf": open_hugging_face}
"""Opens what stands behind ``PREFIX:``; another source of models is one more entry."""


def _open_saved(folder: Path, base: str | None, depth: int = 0) -> Opened:
    """Rebuilds the dense network of an artefact and loads the artefact into it.

    The plan may name a network of the zoo or of a library or, where an artefact was pruned again
    and its plan doesn't hold the earlier steps, a folder. A file of code is never run because a
    plan names it. A program needs none of these.
    """
    plan = load_plan(folder)
    recipe = plan.recipe
    form = InputForm.from_json(recipe["input"]) if "input" in recipe else InputForm()
    if plan.form == "program":
        return Opened(load(folder), str(folder.resolve()), form)
    named = recipe.get("model")
    if depth > _DEEPEST:
        raise ArtifactError(f"{folder}: expected a dense network at the end of its plan's models")
    if isinstance(named, str) and _folder(named) is not None:
        dense = _open_saved(Path(named), base, depth + 1)
    elif base is not None:
        dense = _open_dense(base)
    elif isinstance(named, str) and named.partition(":")[0] in ("zoo", *_LIBRARIES):
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

"""Saves a pruned network as tensors and a plan, and builds it again from a fresh instance.

Nothing is pickled and nothing in an artefact is executed: the tensors are safetensors, the plan is
JSON whose every field is checked before it is used.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bequest.artifact import fields
from bequest.artifact.fingerprint import fingerprint, stored_tensors
from bequest.artifact.folder import (
    PLAN,
    TENSORS,
    as_path,
    existing,
    file_checksum,
    read_plan,
    require_empty,
    staged,
    verified_tensors,
)
from bequest.artifact.lineage import continued, recall, remember
from bequest.artifact.manifest import Manifest
from bequest.artifact.misfit import advice, differences, specs
from bequest.artifact.plan import Plan
from bequest.artifact.program import load_program
from bequest.errors import ArtifactError, ModelError, UsageError
from bequest.execution.modules import require_module
from bequest.execution.reparametrised import as_stored
from bequest.sparse.encoding import TensorSpec, decode, encode
from bequest.sparse.forms import rebuild
from bequest.surgery import operation
from bequest.surgery.program import Document, Program

Model = TypeVar("Model", bound=nn.Module)


def save(
    directory: str | os.PathLike[str], model: nn.Module, plan: Plan, *, beside: str | None = None
) -> None:
    """Writes ``model.safetensors`` and ``plan.json``, both or neither.

    Parameters and persistent buffers are stored once each, whatever their number of names, and
    those with many zeros as their other values and a bit per place.
    Buffers that no state dict holds are not stored: loading takes those of the fresh instance and
    replays the cuts on them.

    Args:
        directory: a folder that is empty or does not exist yet.
        model: the pruned model; trained further, moved or converted to another dtype as you like.
        plan: the plan that made it; of a network pruned in several steps, that of the last one.
        beside: name of something that may lie in the folder already, and stays.

    Raises:
        UsageError: the folder has files in it, ``directory`` is a file, ``plan`` did not make
            ``model``, or the plan holds something that JSON can't.
        ModelError: the model keeps something that a tensor file can't hold.
        ArtifactError: the files could not be written (disk full, no permission).
    """
    target = as_path(directory, "save")
    require_module(model)
    tensors = stored_tensors(model)
    _require_storable(model)
    _require_pruned(tensors, plan)
    _require_whole(model, plan)
    try:
        require_empty(target, beside)
        with staged(target) as staging:
            _write(staging, tensors, plan, model.document if isinstance(model, Program) else None)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{target} could not be written, nothing was left: {error}") from error


@overload
def load(directory: str | os.PathLike[str], fresh_model: Model) -> Model | Program: ...


@overload
def load(directory: str | os.PathLike[str], fresh_model: None = None) -> Program: ...


def load(directory: str | os.PathLike[str], fresh_model: nn.Module | None = None) -> nn.Module:
    """Builds the pruned model from a fresh instance of the dense one.

    Args:
        directory: a folder that :func:`save` wrote.
        fresh_model: an instance of the class that was pruned, built with the same arguments; its
            values don't matter. It is not changed. Where a network was pruned in several steps, one
            of the first, dense network. None, or ignored, where the plan's form is "program": a
            program needs no class.

    Returns:
        A copy of ``fresh_model`` with the surgery replayed and the stored tensors: its outputs
        are those of the saved model to the bit (same mode, device and memory format). Device,
        train or eval mode and ``requires_grad`` are those of ``fresh_model``. A program comes on
        the CPU in evaluation mode.

    Raises:
        UsageError: there is no such folder, or ``fresh_model`` is missing or can't take tensors.
        ArtifactError: a file is missing, truncated, altered or leads out of the folder; or the
            artefact is of another architecture or dtype (the message names the first tensors).
        ModelError: ``fresh_model`` can't be copied.
    """
    folder = existing(directory)
    manifest = _manifest(folder)
    if manifest.plan.form == "program":
        return _load_program(folder, manifest)
    _require_fresh(fresh_model)
    assert fresh_model is not None
    values = _read(verified_tensors(folder, manifest.size, manifest.checksum), manifest)
    model = _replay(folder, fresh_model, manifest)
    with torch.no_grad():
        for name, tensor in stored_tensors(model).items():
            _fill(tensor, values[name])
    return model


def load_plan(directory: str | os.PathLike[str]) -> Plan:
    """The plan of a saved artefact, validated; the tensors are not read.

    Raises:
        UsageError: there is no such folder.
        ArtifactError: ``plan.json`` is missing, altered, of another version or leads elsewhere.
    """
    return _manifest(existing(directory)).plan


def _require_storable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ModelError(
                f"'{name}' ({type(module).__name__}) keeps extra state (get_extra_state), which a "
                "tensor file can't hold; keep it in buffers instead"
            )


def _require_pruned(tensors: Mapping[str, Tensor], plan: Plan) -> None:
    """Raises UsageError where a stored tensor hasn't the width that the plan leaves it."""
    widths = {(cut.tensor, cut.dim): len(cut.keep) // cut.blocks for cut in plan.surgery.cuts}
    for (name, dim), width in widths.items():
        shape = tensors[name].shape if name in tensors else None
        if shape is not None and (dim >= len(shape) or shape[dim] != width):
            raise UsageError(
                f"model: expected the model that the plan pruned, with {width} channels in "
                f"dimension {dim} of '{name}', found the shape {tuple(shape)}"
            )


def _require_whole(model: nn.Module, plan: Plan) -> None:
    """Raises UsageError where another plan made the model: that of another step, for example."""
    lineage = recall(model)
    if lineage is None or plan.form == "program":
        return
    if lineage.plan.surgery != plan.surgery:
        raise UsageError(
            "plan: expected the plan that made the model, found another; where a network was "
            "pruned in several steps, save the last network with the plan of the last step, which "
            "holds all of them"
        )


def _write(
    staging: Path, tensors: Mapping[str, Tensor], plan: Plan, program: Document | None
) -> None:
    path = staging / TENSORS
    try:
        save_file(_apart(encode(tensors)), path, metadata={"format": "pt"})
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the model has a tensor that safetensors can't hold (expected dense tensors with "
            f"data, of a common dtype): {error}"
        ) from error
    specs = {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}
    manifest = Manifest(plan, file_checksum(path), path.stat().st_size, specs, program)
    (staging / PLAN).write_bytes(manifest.encode())
    shutil.copymode(staging / PLAN, path)  # safetensors makes files that only their owner can read


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, none of which shares memory with another."""
    apart: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        dense = tensor.detach().contiguous()
        if dense.untyped_storage().data_ptr() in storages:
            dense = dense.clone()
        storages.add(dense.untyped_storage().data_ptr())
        apart[name] = dense
    return apart


def _load_program(folder: Path, manifest: Manifest) -> Program:
    values = _read(verified_tensors(folder, manifest.size, manifest.checksum), manifest)
    # Tensors of the file lie in memory as the file has them; kernels give the same bits only where
    # they are aligned as torch aligns its own.
    values = {name: value.clone() for name, value in values.items()}
    try:
        program = load_program(manifest.program, values)
    except ArtifactError as error:
        raise ArtifactError(f"{folder / PLAN}: {error}") from error
    remember(program, manifest.plan, None)
    return program


def _require_fresh(model: object) -> None:
    if not isinstance(model, nn.Module):
        hint = f"; write {model.__name__}(...)" if isinstance(model, type) else ""
        raise UsageError(
            f"fresh_model: expected an instance of the network, found {type(model).__name__}{hint}"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError("fresh_model is scripted (TorchScript); pass the Python module")
    on_meta = next((name for name, tensor in stored_tensors(model).items() if tensor.is_meta), None)
    if on_meta is not None:
        raise UsageError(
            f"fresh_model: '{on_meta}' is on the meta device and can't take values; "
            "build the network on a real device, or call to_empty(device=...) on it"
        )


def _manifest(folder: Path) -> Manifest:
    document = read_plan(folder)
    try:
        return Manifest.decode(document)
    except ArtifactError as error:
        raise ArtifactError(f"{folder / PLAN}: {error}") from error


def _read(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    try:
        written = load_file(path)
    except Exception as error:  # whatever the reader of the format raises on a forged file
        raise ArtifactError(f"{path} is not a readable safetensors file: {error}") from error
    values = decode(written, manifest.tensors)
    if found := differences(manifest.tensors, specs(values)):
        raise ArtifactError(f"{path} does not hold what {PLAN} says: {found}")
    return values


def _replay(folder: Path, fresh_model: nn.Module, manifest: Manifest) -> nn.Module:
    """A copy of ``fresh_model`` after the surgery, with exactly the tensors of the manifest."""
    fresh_model, _ = as_stored(fresh_model)
    plan, found = manifest.plan, fingerprint(fresh_model)
    whose = f"{folder} does not fit fresh_model"
    if found != plan.architecture:
        whose += f" (architecture: expected {plan.architecture[:16]}..., found {found[:16]}...)"
    model = _copy(fresh_model)
    try:
        operation.apply(model, plan.surgery)
        whole = continued(fresh_model, plan)
        remember(model, whole.plan, whole.dense)
        model = _with_forms(model, plan.recipe)
    except Exception as error:  # also what a module's own code raises when its tensors are set
        raise ArtifactError(f"{whose}: {error}; {advice(fresh_model, manifest)}") from error
    differing = differences(manifest.tensors, specs(stored_tensors(model)))
    if found != plan.architecture:
        differing = differing or "the same names, but other widths or other shared tensors"
        raise ArtifactError(f"{whose}: {differing}; {advice(fresh_model, manifest)}")
    if differing:
        raise ArtifactError(
            f"{whose}: {differing}; where dtypes differ, convert fresh_model first, "
            "e.g. fresh_model.half()"
        )
    return model


def _with_forms(model: Model, recipe: Mapping[str, Any]) -> Model:
    """The model with layers of the forms that its recipe names; see :func:`rebuild`."""
    if "forms" not in recipe:
        return model
    names = fields.mapping(recipe["forms"], "recipe.forms")
    forms = {name: fields.text(form, f"recipe.forms.{name}") for name, form in names.items()}
    return cast(Model, rebuild(model, forms))


def _copy(model: Model) -> Model:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the model's own attributes raise
        raise ModelError(f"{type(model).__name__} can't be copied: {error}") from error


def _fill(tensor: Tensor, value: Tensor) -> None:
    """Writes values in place, so that everything that holds the tensor sees them."""
    if any(
        step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    ):
        tensor.data = tensor.contiguous()  # an expanded buffer holds each value once for many
    tensor.copy_(value)

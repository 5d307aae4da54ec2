"""Changes the files of an artefact, as decay or a forger would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st
from torch import nn

from bequest.artifact import load
from bequest.artifact.manifest import _seal
from bequest.errors import ArtifactError
from tests.artifact.networks import GroupedTail

PLAN, TENSORS = "plan.json", "model.safetensors"


class Changed:
    """The artefact with other bytes in one file, for the length of a with block."""

    def __init__(self, folder: Path, **files: bytes) -> None:
        self.paths = {folder / name.replace("_", "."): data for name, data in files.items()}

    def __enter__(self):
        self.before = {path: path.read_bytes() for path in self.paths}
        for path, data in self.paths.items():
            path.write_bytes(data)

    def __exit__(self, *_):
        for path, data in self.before.items():
            path.write_bytes(data)


def snapshot(model: nn.Module) -> list[tuple[str, object]]:
    tensors = [(name, value.tolist()) for name, value in model.state_dict().items()]
    return [*tensors, *((name, module.extra_repr()) for name, module in model.named_modules())]


def refused(folder: Path, words: str | None = None) -> None:
    """Loading raises ArtifactError and leaves the fresh model as it was."""
    fresh = GroupedTail()
    before = snapshot(fresh)
    with pytest.raises(ArtifactError, match=words):
        load(folder, fresh)
    assert snapshot(fresh) == before


def damages():
    """Truncations, and changes of a few bytes anywhere."""
    position = st.floats(0, 1, exclude_max=True)
    flips = st.lists(st.tuples(position, st.integers(1, 255)), min_size=1, max_size=3)
    return st.one_of(st.tuples(st.just("cut"), position), st.tuples(st.just("flip"), flips))


def damaged(data: bytes, damage) -> bytes:
    kind, what = damage
    if kind == "cut":
        return data[: int(what * len(data))]
    changed = bytearray(data)
    for position, mask in what:
        changed[int(position * len(data))] ^= mask
    return bytes(changed)


def resealed(document: dict[str, object]) -> bytes:
    """What a forger writes who knows how plan.json is sealed."""
    document.pop("seal", None)
    return json.dumps({**document, "seal": _seal(document)}).encode()


def forged(artefact, **changes: object) -> bytes:
    return resealed({**json.loads((artefact.folder / PLAN).read_bytes()), **changes})

"""Damaged and misplaced files: always ArtifactError, and the fresh model is untouched."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings

from bequest.artifact import folder as folders
from bequest.artifact import load, load_plan
from bequest.artifact.manifest import Manifest
from bequest.errors import ArtifactError
from tests.artifact.networks import GroupedTail
from tests.artifact.tampering import PLAN, TENSORS, Changed, damaged, damages, refused


@settings(max_examples=300, deadline=None)
@given(damage=damages())
def test_any_damage_to_the_tensors_is_refused(artefact, damage):
    data = (artefact.folder / TENSORS).read_bytes()
    changed = damaged(data, damage)
    assume(changed != data)  # two flips may undo each other
    with Changed(artefact.folder, model_safetensors=changed):
        refused(artefact.folder, "expected .* bytes|expected the SHA-256")


@settings(max_examples=300, deadline=None)
@given(damage=damages())
def test_any_damage_to_the_plan_is_refused_or_means_the_same(artefact, damage):
    """One byte may become another spelling of the same JSON, e.g. 1e-05 and 1E-05."""
    with Changed(artefact.folder, plan_json=damaged((artefact.folder / PLAN).read_bytes(), damage)):
        try:
            plan = load_plan(artefact.folder)
        except ArtifactError:
            refused(artefact.folder)
        else:
            assert plan == artefact.plan


def test_bytes_after_the_end_are_refused(artefact):
    with Changed(
        artefact.folder, model_safetensors=(artefact.folder / TENSORS).read_bytes() + b"0"
    ):
        refused(artefact.folder, "truncated or altered")
    with Changed(artefact.folder, plan_json=(artefact.folder / PLAN).read_bytes() + b"0"):
        refused(artefact.folder, "found text that is none")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        "{",
        "[" * 100_000,
        "NaN",
        '{"a": 1e999}',
        "9" * 5000,
        '"\\ud800"',
        "\0",
    ],
)
def test_what_is_no_document(artefact, text):
    with Changed(artefact.folder, plan_json=text.encode()):
        refused(artefact.folder, r"plan\.json: expected")


def test_what_is_no_utf8(artefact):
    with Changed(artefact.folder, plan_json=b"\xff\xfe{}"):
        refused(artefact.folder, r"plan\.json: expected a JSON object")


def test_an_absurd_plan_is_not_read(artefact, monkeypatch):
    path = artefact.folder / PLAN
    data = path.read_bytes()
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("was read"))
    os.truncate(path, folders._LARGEST_PLAN + 1)  # sparse: takes no room on the disk
    try:
        refused(artefact.folder, "expected at most")
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("name", [PLAN, TENSORS])
def test_a_missing_file_is_named(grouped, name):
    (grouped.folder / name).unlink()
    refused(grouped.folder, f"found no {name}")


@pytest.mark.parametrize("name", [PLAN, TENSORS])
def test_a_link_out_of_the_folder_is_refused(grouped, name):
    path = grouped.folder / name
    path.rename(grouped.folder.parent / name)
    path.symlink_to(Path("..") / name)
    refused(grouped.folder, "found a link out of the folder")


@pytest.mark.parametrize("name", [PLAN, TENSORS])
def test_what_is_no_regular_file_is_refused(grouped, name):
    path = grouped.folder / name
    path.unlink()
    os.mkfifo(path)
    refused(grouped.folder, "expected a regular file")
    path.unlink()
    path.mkdir()
    refused(grouped.folder, "expected a regular file")
    path.rmdir()
    path.symlink_to(path)
    refused(grouped.folder, "can't be read")


def test_a_link_to_the_folder_itself_is_fine(grouped):
    link = grouped.folder.parent / "link"
    link.symlink_to(grouped.folder)
    model = load(link, GroupedTail().eval())
    assert torch.equal(model(grouped.case.inputs), grouped.model.eval()(grouped.case.inputs))


def test_the_manifest_says_what_the_file_is(grouped):
    document = json.loads((grouped.folder / PLAN).read_bytes())
    data = (grouped.folder / TENSORS).read_bytes()
    assert document["checksum"] == hashlib.sha256(data).hexdigest()
    assert document["size"] == len(data)
    assert document["tensors"]["first.weight"] == {"dtype": "float32", "shape": [6, 3, 3, 3]}
    assert Manifest.decode((grouped.folder / PLAN).read_bytes()).plan == grouped.plan

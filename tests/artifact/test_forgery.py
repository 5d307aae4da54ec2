"""Files that a forger wrote, seal and checksum renewed: refused, or a module and nothing else."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bequest.artifact import load
from bequest.errors import ArtifactError
from tests.artifact.networks import GroupedTail
from tests.artifact.tampering import (
    PLAN,
    TENSORS,
    Changed,
    damaged,
    damages,
    forged,
    refused,
    resealed,
    snapshot,
)

_ODD = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 8, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308),
    *("", "first", "__class__", "forward", "first.weight", "\x1b[2J", "\ud800", "../../etc"),
    *([], [0], [0, 0], [1, 0], [-1], [True], ["x"], {}, {"a": 1}, [[0]]),
]


def _places(value: Any, path: tuple[str | int, ...] = ()):
    """The paths of all values in a JSON document, but for its root."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, held in items:
        yield (*path, key)
        if isinstance(held, dict | list):
            yield from _places(held, (*path, key))


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_a_forged_plan_is_refused_or_loads_a_module(artefact, data):
    """Any value, name or item of the document is replaced or removed, and the seal renewed."""
    document = json.loads((artefact.folder / PLAN).read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(list(_places(document))))
        parent = document
        for key in path:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[last] = copy.deepcopy(data.draw(st.sampled_from(_ODD)))
        else:
            del parent[last]
    with Changed(artefact.folder, plan_json=resealed(document)):
        fresh = GroupedTail()
        before = snapshot(fresh)
        try:
            model = load(artefact.folder, fresh)
        except ArtifactError:
            pass
        else:
            assert isinstance(model, GroupedTail)
        assert snapshot(fresh) == before


@settings(max_examples=300, deadline=None)
@given(damage=damages())
def test_forged_tensors_are_refused_or_loaded_as_what_the_plan_says(artefact, damage):
    """The bytes are changed and the plan's checksum and size renewed: the format must hold."""
    changed = damaged((artefact.folder / TENSORS).read_bytes(), damage)
    plan = forged(artefact, checksum=hashlib.sha256(changed).hexdigest(), size=len(changed))
    with Changed(artefact.folder, plan_json=plan, model_safetensors=changed):
        try:
            model = load(artefact.folder, GroupedTail())
        except ArtifactError:
            refused(artefact.folder)
        else:
            assert model.first.weight.shape == (6, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, r"version: expected 1 .* found 2"),
        ({"version": True}, r"version: expected 1 .* found True"),
        ({"architecture": "0" * 63}, "architecture: expected 64 hexadecimal digits"),
        ({"checksum": "F" * 64}, "checksum: expected 64 hexadecimal digits"),
        ({"size": -1}, "size: expected a whole number of at least 0"),
        ({"size": 2**62}, f"expected {2**62} bytes"),
        ({"extra": 1}, "expected the fields version"),
        ({"recipe": []}, "recipe: expected an object"),
        ({"recipe": {"a": json.loads("[" * 30 + "]" * 30)}}, "nested at most 16 deep"),
        ({"recipe": {"a": 10**30}}, r"recipe\.a: expected a whole number"),
        ({"versions": {"torch": 2}}, r"versions\.torch: expected a string"),
        ({"tensors": {"a": {"dtype": "float32", "shape": [2.0]}}}, r"tensors\.a\.shape"),
        ({"tensors": {}}, r"does not hold what plan\.json says: .* \(expected none, found"),
        ({"groups": [{"name": "x"}]}, r"groups\[0\]: expected the fields name, kind"),
        ({"refused": [{"group": "x", "size": 1, "reason": "\x1b[2J"}]}, "control characters"),
    ],
)
def test_forged_fields_are_named(artefact, change, words):
    with Changed(artefact.folder, plan_json=forged(artefact, **change)):
        refused(artefact.folder, words)


_CUT = {"tensor": "first.weight", "dim": 0, "keep": [0, 1], "blocks": 1}
_WIDTH = {"module": "first", "name": "out_channels", "before": 8, "after": 6}


@pytest.mark.parametrize(
    ("part", "entry", "words"),
    [
        ("cuts", {**_CUT, "keep": [1, 0]}, "expected ascending numbers"),
        ("cuts", {**_CUT, "keep": [0, 0]}, "expected ascending numbers"),
        ("cuts", {**_CUT, "keep": [-1, 0]}, "a whole number of at least 0"),
        ("cuts", {**_CUT, "keep": [False, True]}, "a whole number of at least 0"),
        ("cuts", {**_CUT, "keep": []}, "the same number of indices per block"),
        ("cuts", {**_CUT, "keep": [0, 8]}, r"up to 8 of 'first\.weight'"),
        ("cuts", {**_CUT, "keep": [0, 2**62]}, f"up to {2**62}"),
        ("cuts", {**_CUT, "dim": 4}, "dimension 4"),
        ("cuts", {**_CUT, "dim": -1}, "a whole number of at least 0"),
        ("cuts", {**_CUT, "blocks": 2}, "a dimension after the rows"),
        ("cuts", {**_CUT, "blocks": 3, "dim": 1}, "the same number of indices per block"),
        ("cuts", {**_CUT, "blocks": 2**40, "dim": 1}, "the same number of indices per block"),
        ("cuts", {**_CUT, "tensor": "first.__dict__"}, "which the model does not have"),
        ("attributes", {**_WIDTH, "name": "__class__"}, "expected one of .* found '__class__'"),
        ("attributes", {**_WIDTH, "name": "forward"}, "expected one of .* found 'forward'"),
        ("attributes", {**_WIDTH, "name": ["out_channels"]}, "expected a string"),
        ("attributes", {**_WIDTH, "module": "nowhere"}, r"expected nowhere\.out_channels = 8"),
        ("attributes", {**_WIDTH, "before": 9}, r"expected first\.out_channels = 9, found 8"),
        ("attributes", {**_WIDTH, "after": 9}, "at most the width before"),
        ("attributes", {**_WIDTH, "after": [6]}, "as many numbers as before"),
        ("attributes", {**_WIDTH, "after": 0}, "a whole number of at least 1"),
        ("attributes", {**_WIDTH, "after": True}, "a whole number of at least 1"),
        ("biases", "first", "layer without a bias at 'first'"),
        ("biases", "nowhere", "layer without a bias at 'nowhere'"),
        ("biases", 3, "expected a string"),
    ],
)
def test_forged_surgery_is_refused(artefact, part, entry, words):
    empty: dict[str, list[object]] = {"cuts": [], "attributes": [], "biases": []}
    surgery = {**empty, part: [entry]}
    with Changed(artefact.folder, plan_json=forged(artefact, surgery=surgery)):
        refused(artefact.folder, words)


def test_tensors_of_other_names_are_named(artefact):
    values = load_file(artefact.folder / TENSORS)
    values["evil\x1b"] = values.pop("head.bias").clone()
    save_file(values, artefact.folder.parent / "forged")
    data = (artefact.folder.parent / "forged").read_bytes()
    plan = forged(artefact, checksum=hashlib.sha256(data).hexdigest(), size=len(data))
    with Changed(artefact.folder, plan_json=plan, model_safetensors=data):
        refused(artefact.folder, r"'head\.bias' .* found none\), 'evil\\x1b'")

"""A plan's version stands for its fields: others are never guessed at."""

from __future__ import annotations

import json

import pytest

from bequest.artifact.manifest import Manifest
from bequest.artifact.parse import parse_plan
from bequest.artifact.plan import VERSION, GroupPlan, Plan, Refusal
from bequest.errors import ArtifactError
from bequest.surgery.operation import Attribute, Surgery, TensorCut
from tests.artifact.tampering import resealed

FIELDS = {
    1: {
        "": "version architecture recipe versions groups refused surgery form",
        "groups": "name kind producers consumers size removed restored_by reconstruction_error "
        "notes unrestored_error predicted_error condition ridge",
        "refused": "group size reason",
        "surgery": "cuts attributes biases",
        "cuts": "tensor dim keep blocks",
        "attributes": "module name before after",
    }
}
"""Version → the fields of every part, as they were released. Add a version; never change one."""


def document():
    plan = Plan(
        architecture="0" * 64,
        recipe={},
        versions={},
        groups=(GroupPlan("conv", "inner", ("conv",), ("fc",), 2, (0,), "none", None, ()),),
        refused=(Refusal("fc", 1, "it has a single channel"),),
        surgery=Surgery(
            (TensorCut("conv.weight", 0, (1,)),), (Attribute("conv", "groups", 2, 1),), ()
        ),
    )
    return json.loads(json.dumps(plan.to_json()))


def test_a_version_has_the_fields_that_it_was_released_with():
    body = document()
    parts = {"": [body], "surgery": [body["surgery"]]}
    parts |= {name: body[name] for name in ("groups", "refused")}
    parts |= {name: body["surgery"][name] for name in ("cuts", "attributes")}
    found = {name: " ".join(items[0]) for name, items in parts.items()}
    assert found == FIELDS[VERSION]
    assert parse_plan(body).to_json()["version"] == VERSION


@pytest.mark.parametrize("field", ["unrestored_error", "predicted_error", "condition", "ridge"])
def test_a_plan_from_before_the_release_is_refused_with_what_it_lacks(field):
    body = document()
    del body["groups"][0][field]
    with pytest.raises(ArtifactError, match=rf"groups\[0\]: .*'missing': \['{field}'\]"):
        parse_plan(body)


def test_a_field_that_is_not_known_is_refused_by_name():
    body = document()
    body["groups"][0]["mood"] = 1.0
    with pytest.raises(ArtifactError, match=r"groups\[0\]: .*'unknown': \['mood'\]"):
        parse_plan(body)


def test_a_plan_of_another_version_is_refused_as_such_whatever_its_fields():
    with pytest.raises(ArtifactError, match=r"version: expected 1 \(another one is read by"):
        Manifest.decode(resealed({"version": VERSION + 1, "layers": []}))

"""Programs come back to the bit without the class, and nothing forged is run."""

from __future__ import annotations

import copy
import json

import pytest
import torch

import bequest
from bequest.artifact.program import load_program
from bequest.errors import ArtifactError, UsageError
from tests.networks import LiteralAttention


@pytest.fixture(scope="module")
def pruned():
    torch.manual_seed(0)
    return bequest.prune(LiteralAttention(), torch.randn(2, 5, 12), 0.5, round_to=1)


def test_round_trip(pruned, tmp_path):
    pruned.save(tmp_path / "out")
    x = torch.randn(3, 5, 12)
    for loaded in (bequest.load(tmp_path / "out"), bequest.load(tmp_path / "out", object())):
        assert torch.equal(loaded(x), pruned.model(x))
        assert [name for name, _ in loaded.named_parameters()] == [
            name for name, _ in pruned.model.named_parameters()
        ]
    assert bequest.load_plan(tmp_path / "out") == pruned.plan
    held = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert held["form"] == "program"


def test_a_program_is_trained_copied_and_saved_again(pruned, tmp_path):
    model = copy.deepcopy(pruned.model)
    model(torch.randn(4, 5, 12)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    bequest.artifact.save(tmp_path / "out", model, pruned.plan)
    x = torch.randn(1, 5, 12)
    assert torch.equal(bequest.load(tmp_path / "out")(x), model(x))


def test_a_module_needs_a_fresh_instance(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    bequest.prune(model, torch.randn(1, 4), 0.5).save(tmp_path / "out")
    with pytest.raises(UsageError, match="fresh_model"):
        bequest.load(tmp_path / "out")


FORGERIES = {
    "an operator of the system": (
        lambda d: d["steps"].insert(0, ["os.system", [], {}]),
        "operator",
    ),
    "an operator that reads files": (
        lambda d: d["steps"].insert(0, ["aten.from_file.default", ["/etc/passwd"], {}]),
        "operator",
    ),
    "an operator in place": (
        lambda d: d["steps"].insert(0, ["aten.relu_.default", [{"value": 0}], {}]),
        "operator",
    ),
    "an attribute of an operator": (
        lambda d: d["steps"].insert(0, ["aten.relu.__class__", [], {}]),
        "operator",
    ),
    "a value from later": (lambda d: d["steps"][0][1].__setitem__(0, {"value": 99}), "under"),
    "an argument that is code": (
        lambda d: d["inputs"][0].__setitem__("name", "x):\n  import os\n#"),
        "name",
    ),
    "a tensor that is none": (lambda d: d["tensors"].append("forward.x"), "saved tensors"),
    "a keyword": (lambda d: d["steps"][0][2].__setitem__("out", {"value": 0}), "named arguments"),
    "no dtype": (lambda d: d["steps"][0][1].append({"dtype": "load"}), "dtype"),
    "an unknown mark": (lambda d: d["steps"][0][1].append({"call": 1}), "value"),
    "a flag of parts": (
        lambda d: d["inputs"].append({"name": "flag", "equals": [1], "default": 1}),
        "a number, a text, true, false or null",
    ),
    "a default of parts": (
        lambda d: d["inputs"].append({"name": "flag", "equals": 1, "default": {}}),
        "a number, a text, true, false or null",
    ),
    "no tensor": (
        lambda d: d.update(inputs=[{"name": "flag", "equals": 1, "default": 1}]),
        "at least one tensor",
    ),
    "another size": (lambda d: d["inputs"][0].__setitem__("shape", [2, 5, 13]), "does not run"),
    "an absurd size": (
        lambda d: d["steps"].append(["aten.zeros.default", [[2**30, 2**30]], {}]),
        "elements",
    ),
    "a field more": (lambda d: d.__setitem__("code", "1"), "fields"),
    "no result": (lambda d: d.__setitem__("returns", {"set": []}), "list"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forgeries_are_refused(pruned, forgery):
    change, message = FORGERIES[forgery]
    document = copy.deepcopy(pruned.model.document)
    tensors = {name: t.detach() for name, t in pruned.model.state_dict().items()}
    load_program(document, tensors)
    change(document)
    with pytest.raises(ArtifactError, match=message):
        load_program(document, tensors)

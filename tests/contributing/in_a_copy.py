"""Tests of the examples; test_examples.py runs them where the files are part of the package."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import bequest
from bequest import config
from bequest.calibration.inputs import Synthetic
from bequest.cli.app import main
from bequest.criteria.base import Criterion
from tests.contributing.networks import turned, twins
from tests.contributing.page import ROOT, examples

NETWORKS = Path(__file__).with_name("networks.py")
X = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class First(Criterion):
    """The first channels stay."""

    def _scores(self, unit, seed):
        return -torch.arange(unit.size).double()


def pruned(ratio=0.5, **options):
    return bequest.prune(twins(), X, ratio, **({"round_to": 1, "progress": False} | options))


@pytest.fixture
def command(monkeypatch, capsys):
    """The document that a command prints."""

    def run(line, *more):
        words = [word for word in shlex.split(line) if word != "bequest"]
        monkeypatch.setattr(sys, "argv", ["bequest", *words, *more, "--json"])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert not end.value.code, printed.err
        return json.loads(printed.out)

    return run


@pytest.fixture
def both(command):
    """The report of a call as the page has it: the same in Python and on the command line."""

    def call(name, restorer=None, ratio=0.5):
        example = examples()[name]
        line = f"prune {NETWORKS}:twins --size 3x6x6 --round-to 1 {example.line}"
        line += "" if ratio is None else f" --ratio {ratio}"
        line += "" if restorer is None else f" --restorer {restorer}"
        options = eval(f"dict({example.python})") | ({"restorer": restorer} if restorer else {})
        result, said = pruned(ratio, **options), command(line)
        groups = [(one.name, one.kept, one.restored_by) for one in result.plan.groups]
        assert [(one["name"], one["kept"], one["restored_by"]) for one in said["groups"]] == groups
        for recipe in (result.plan.recipe, said["recipe"]):
            assert name in json.dumps(recipe)
        return result

    return call


def test_this_is_a_copy():
    assert ROOT not in Path(bequest.__file__).parents


def test_the_criterion_keeps_the_highest_peaks(both):
    for name, group in zip("02", both("peak", "none").plan.groups, strict=True):
        rows = twins().get_submodule(name).weight.flatten(1).tolist()
        peaks = [max(abs(w) for w in row) for row in rows]
        lost = sorted(peaks[j] for j in group.removed)
        assert lost == sorted(peaks)[: len(lost)]  # whichever of two twins it is


def test_the_restorer_in_weight_space_hands_twins_on_exactly(both):
    assert {group.restored_by for group in both("nearest").plan.groups} == {"nearest"}
    exact = pruned({"0": 0.5}, criterion=First(), restorer="nearest")
    assert exact.plan.groups[0].removed == (4, 5, 6, 7)
    torch.testing.assert_close(exact.model(X), twins()(X))


def test_the_restorer_by_walk_corrects_means_alone(both):
    for group in both("bias").plan.groups:
        assert group.restored_by == "bias"
        assert group.reconstruction_error > 0
    many = Synthetic(images=512)  # means of a few say little of those that are held back
    for group in pruned(restorer="bias", data=many).plan.groups:
        assert 0 < group.reconstruction_error < group.unrestored_error
    plain = pruned({"2": 0.5}, criterion="l2", restorer="none").model
    corrected = pruned({"2": 0.5}, criterion="l2", restorer="bias", data=X).model
    assert torch.equal(corrected[5].weight, plain[5].weight)
    without, left = ((model(X) - twins()(X)).mean(0).norm() for model in (plain, corrected))
    assert left < 0.2 * without  # a tenth of the inputs was held back


def test_the_source_makes_images_of_two_values(both):
    assert both("scanned").plan.recipe["inputs"]["source"]["name"] == "scanned"
    made = config.resolve("inputs", "scanned").make(twins(), X, 0)
    assert {*made.chunks[0][0].unique().tolist()} == {-1.0, 1.0}


def test_the_target_keeps_its_share_of_the_scores(both):
    for name, group in zip("02", both("energy", "none", ratio=None).plan.groups, strict=True):
        scores = twins().get_submodule(name).weight.flatten(1).norm(dim=1)
        best = scores.sort(descending=True).values
        assert best[: group.kept].sum() >= 0.7 * scores.sum() > best[: group.kept - 1].sum()


def test_the_rule_opens_a_wall(command):
    example, names = examples()["turning"], {"bequest": bequest}
    names |= {"model": turned(), "example_inputs": X}
    assert not eval(example.python, names).walls
    line = example.line.replace("MODEL", f"{NETWORKS}:turned")
    assert not command(line, "--size", "3x6x6")["walls"]
    result = bequest.prune(turned(), X, 0.5, restorer="none", round_to=1, progress=False)
    assert [(one.name, len(one.removed)) for one in result.plan.groups] == [("first", 4)]


def test_the_source_of_models_opens_them(command):
    opens = eval(examples()["mlp"].python, {"bequest": bequest})
    model, form = opens(False)
    assert form.size == (12,)
    assert model(torch.zeros(2, 12)).shape == (2, 4)
    with pytest.raises(bequest.BequestError, match="--weights"):
        opens(True)
    said = command(examples()["mlp"].line)
    assert [(one["name"], one["size"]) for one in said["groups"]] == [("0", 8), ("2", 4)]

"""Sweeps: the same numbers wherever they run, from where they stopped, whatever fails."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import bequest
from bequest.errors import BequestError, MissingExtraError, UsageError
from bequest.restorers import Regression
from bequest.sweeping import Network, Tokens
from bequest.sweeping.comparison import Key
from bequest.sweeping.journal import Journal
from tests.sweeping.networks import Counted, Fails, numbers, small

QUICK = Regression(images=64, inversion=0, refine=0)
QUICK_NAME = "regression(images=64, inversion=0, refine=0)"
GRID = {
    "ratios": (0.5,),
    "criteria": ("random",),
    "restorers": ("none", QUICK),
    "seeds": (0, 1),
    "round_to": 1,
    "progress": False,
}


@pytest.fixture(scope="module")
def networks():
    return [small(), small("wide", 16)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep") / "journal"


@pytest.fixture(scope="module")
def undisturbed(networks, written):
    return bequest.sweep(networks, **GRID, workers=1, journal=written)


def test_a_cell_is_what_prune_gives(networks, undisturbed):
    one = networks[0]
    cell = undisturbed.comparisons[0].over_seeds("random", QUICK_NAME, 0.5)[1]
    alone = bequest.prune(
        one.model,
        one.example_inputs,
        0.5,
        criterion="random",
        restorer=QUICK,
        seed=1,
        round_to=1,
        progress=False,
    )
    assert cell.seed == 1
    assert cell.groups == alone.report.groups
    assert cell.cost == alone.report.after
    assert cell.accuracy == one.measure.accuracy(alone.model)


def test_every_cell_is_there_in_order(undisturbed):
    assert [one.model for one in undisturbed.comparisons] == ["small", "wide"]
    for one in undisturbed.comparisons:
        assert one.criteria == ("random",)
        assert one.restorers == ("none", QUICK_NAME)
        assert one.seeds == (0, 1)
        assert len(one.cells) == 4
        assert one.accuracy.top1 == 100
    assert not undisturbed.failures


def test_processes_give_the_same_numbers(networks, undisturbed):
    assert numbers(bequest.sweep(networks, **GRID, workers=2)) == numbers(undisturbed)


def test_what_a_journal_holds_is_not_done_again(networks, undisturbed, written):
    lines = written.read_text().splitlines()
    assert len(lines) == 1 + 8
    again = bequest.sweep(networks, **GRID, workers=1, journal=written)
    assert numbers(again) == numbers(undisturbed)
    assert written.read_text().splitlines() == lines


def test_a_torn_journal_goes_on(networks, undisturbed, written, tmp_path, monkeypatch):
    path = tmp_path / "journal"
    lines = written.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]) + lines[6][:50])
    made = []
    add = Journal.add
    monkeypatch.setattr(Journal, "add", lambda self, k, c: (made.append(k), add(self, k, c)))

    found = bequest.sweep(networks, **GRID, workers=1, journal=path)

    assert numbers(found) == numbers(undisturbed)
    assert len(made) == 8 - 5
    cells = [json.loads(line)["cell"] for line in path.read_text().splitlines()[1:]]
    assert len({tuple(cell[name] for name in Key._fields) for cell in cells}) == len(cells) == 8


def test_a_journal_of_which_not_even_the_head_was_written_begins_anew(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b'{"journal": 1, "swe')
    bequest.sweep(small(), ratios=(0.5,), restorers=("none",), workers=1, journal=path)
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"ratios": (0.25,)}, r"ratios\[0\]: expected 0.5 as it holds, found 0.25"),
        ({"round_to": 2}, r"settings.round_to: expected 1"),
        ({"restorers": ("none", "lbyl")}, r"restorers\[1\]: expected \"regression"),
        ({"seeds": (0,)}, "seeds, how many: expected 2 as it holds, found 1"),
        ({"networks": [small(seed=4), small("wide", 16)]}, r"networks\[0\].tensors"),
        ({"networks": [small(name="other")]}, r'networks\[0\].name: expected "small"'),
    ],
)
def test_the_journal_of_another_sweep_is_refused(
    networks, undisturbed, written, tmp_path, change, difference
):
    path = tmp_path / "journal"
    call = {"networks": networks, **GRID, "journal": path, "workers": 1, **change}
    before = written.read_text() + '{"cell": {"torn'
    path.write_text(before)
    with pytest.raises(UsageError, match=f"another sweep: {difference}"):
        bequest.sweep(**call)
    assert path.read_text() == before


def test_what_is_no_journal_is_refused_and_left_alone(tmp_path):
    for content in ("my notes", "my notes\n", "my\nnotes", '{"a": 1}\n', '{"a": 1}\n{"b": 2}'):
        path = tmp_path / "notes"
        path.write_text(content)
        with pytest.raises(UsageError, match="no journal of a sweep"):
            bequest.sweep(small(), **GRID, workers=1, journal=path)
        assert path.read_text() == content


def test_a_damaged_line_in_the_middle_is_refused_by_its_number(tmp_path):
    path = tmp_path / "journal"
    call = {**GRID, "restorers": ("none",), "journal": path, "workers": 1}
    bequest.sweep(small(), **call)
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"params"', '"parms"')
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BequestError, match="line 2: expected a cell"):
        bequest.sweep(small(), **call)


def test_two_sweeps_do_not_write_one_journal(tmp_path):
    pytest.importorskip("fcntl")
    with (
        Journal(tmp_path / "journal", {"a": 1}),
        pytest.raises(UsageError, match="written by another sweep"),
    ):
        Journal(tmp_path / "journal", {"a": 1})


def test_a_full_disk_leaves_the_journal_readable(tmp_path, monkeypatch):
    """The system writes a part of the second cell's line."""
    import os

    path, write = tmp_path / "journal", os.write
    call = {**GRID, "restorers": ("none",), "journal": path, "workers": 1}

    def full(file, line):
        return write(file, line[:40] if path.read_bytes().count(b"\n") == 2 else line)

    with monkeypatch.context() as patched, pytest.raises(BequestError, match="stays readable"):
        patched.setattr(os, "write", full)
        bequest.sweep(small(), **call)
    assert path.read_bytes().count(b"\n") == 2
    assert path.read_bytes().endswith(b"\n")
    assert len(bequest.sweep(small(), **call).comparisons[0].cells) == 2


def test_a_failed_cell_has_its_reason_and_the_others_go_on(networks, tmp_path):
    path = tmp_path / "journal"
    call = {"ratios": (0.25, 0.5), "criteria": ("l2", Fails()), "restorers": ("none",)}
    found = bequest.sweep(networks, **call, workers=1, journal=path)
    small_one, wide = found.comparisons
    assert len(small_one.cells) == 2
    assert len(wide.cells) == 4
    assert [one.key.criterion for one in small_one.failed] == ["Fails", "Fails"]
    assert {one.reason for one in found.failures} == {"unexpected ValueError: twelve is too many"}
    assert len(path.read_text().splitlines()) == 1 + 6  # what failed is tried again
    assert found.to_json()["networks"][0]["failed"][0]["ratio"] == 0.25


def test_a_network_that_cannot_be_measured_does_not_stop_the_others(networks):
    broken = replace(networks[1], example_inputs=torch.zeros(1, 5))
    found = bequest.sweep(
        [networks[0], broken], ratios=(0.5,), restorers=("none",), workers=1, progress=False
    )
    assert [one.model for one in found.comparisons] == ["small"]
    assert [one.key.network for one in found.failures] == ["wide"]
    with pytest.raises(UsageError, match=re.escape(found.failures[0].reason[:20])):
        bequest.sweep(broken, ratios=(0.5,), restorers=("none",), workers=1, progress=False)


def test_a_lost_process_is_replaced_and_a_failed_cell_reported(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    found = bequest.sweep(
        small(),
        ratios=(0.25, 0.5),
        criteria=(Counted(marks, kills=True), Fails()),
        restorers=("none",),
        workers=2,
        progress=False,
    )
    assert len(found.comparisons[0].cells) == 2
    assert {one.reason for one in found.failures} == {"unexpected ValueError: twelve is too many"}
    assert len({mark.name.partition("-")[2] for mark in marks.iterdir()}) >= 2


def test_what_cannot_be_carried_is_named():
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x)

    here = Network("here", Local(), torch.zeros(1, 4), [(torch.zeros(2, 4), torch.zeros(2).long())])
    call = {"ratios": (0.5,), "restorers": ("none",), "progress": False}
    with pytest.raises(UsageError, match=r"here can't be carried .* use one worker"):
        bequest.sweep(here, **call, workers=2)
    assert len(bequest.sweep(here, **call, workers=1).comparisons) == 1


def test_latencies_are_those_of_both_networks_and_come_back_from_the_journal(tmp_path):
    call = {"ratios": (0.5,), "restorers": ("none",), "workers": 1, "latency": True}
    found, again = (bequest.sweep(small(), **call, journal=tmp_path / "j") for _ in range(2))
    cell = found.comparisons[0].cells[0]
    assert 0 < cell.time_left < math.inf
    assert again.comparisons[0].cells[0].timed == cell.timed
    assert cell.to_json()["latency"]["dense"]["threads"] == 1


def test_of_texts_the_perplexity_is_compared():
    class Next(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.inner = nn.Embedding(9, 8), nn.Linear(8, 16)
            self.out = nn.Linear(16, 9)

        def forward(self, tokens):
            return self.out(self.inner(self.table(tokens)).relu())

    one = Network(
        "text",
        Next().eval(),
        torch.zeros(1, 4, dtype=torch.int64),
        Tokens(torch.arange(60) % 9, 4),
    )
    (found,) = bequest.sweep(one, ratios=(0.5,), restorers=("none",), workers=1).comparisons
    cell = found.cells[0]
    assert found.of_text
    assert found.median("l2", "none", 0.5) == math.exp(cell.accuracy.loss)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"engine": "slurm"}, "expected local or ray"),
        ({"address": "auto"}, "for the engine ray"),
        ({"workers": 0}, "at least 1, found 0"),
        ({"ratios": ()}, "ratios: expected at least one"),
        ({"restorers": "lbyl"}, "found the word 'lbyl'"),
        ({"restorers": ("lbly",)}, "Did you mean 'lbyl'"),
        ({"restorers": ("lbyl", "lbyl")}, "twice"),
        ({"seeds": (-1,)}, "seed: expected"),
        ({"networks": [small(), small()]}, "names that differ"),
    ],
)
def test_wrong_calls(wrong, message):
    with pytest.raises(UsageError, match=message):
        bequest.sweep(**{"networks": small(), **wrong})


def test_measures_are_read_again_and_again():
    with pytest.raises(UsageError, match="a list of batches"):
        Network("one", nn.Linear(2, 2), torch.zeros(1, 2), iter([]))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bequest\[sweep\]'"):
        bequest.sweep(small(), engine="ray")

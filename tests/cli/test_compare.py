"""``bequest compare``: one cell per criterion, restorer and ratio, all on the same images."""

import csv
import json

HERE = ("--workers", 1)
"""In this process: what others would do is tested once."""


def accuracies(cell):
    return cell["criterion"], cell["restorer"], cell["ratio"], cell["accuracy"], cell["cost"]


def test_cells_are_what_prune_measures(run, net, images, form, tmp_path):
    shared = (f"{net}:make", *form, "--data", images, "--round-to", 1)
    result = run(
        "compare", *shared, "--ratios", "0,0.5", "--restorers", "none,lbyl", "--json", *HERE
    )
    assert result.code == 0, result.err
    document = result.json
    keys = [(c["criterion"], c["restorer"], c["ratio"]) for c in document["cells"]]
    assert keys == [
        ("l2", "none", 0.0),
        ("l2", "none", 0.5),
        ("l2", "lbyl", 0.0),
        ("l2", "lbyl", 0.5),
    ]
    dense, pruned = (
        document["dense"],
        dict(zip(keys, document["cells"], strict=True)),
    )
    for restorer in ("none", "lbyl"):
        assert pruned["l2", restorer, 0.0]["accuracy"] == dense["accuracy"]
        assert pruned["l2", restorer, 0.0]["cost"] == dense["cost"]
        alone = run("prune", *shared, "--ratio", "0.5", "--restorer", restorer, "--json").json
        assert pruned["l2", restorer, 0.5]["accuracy"] == alone["after"]["accuracy"]
        assert pruned["l2", restorer, 0.5]["cost"] == alone["after"]["cost"]


def test_channels_and_errors_are_those_that_prune_finds_where_inputs_are_looked_at(
    run, net, images, form
):
    """Both make their synthetic images in the range that --mean and --std tell."""
    shared = (f"{net}:make", *form, "--data", images, "--round-to", 1, "--criterion", "obs")
    table = run(
        "compare", *shared, "--ratios", "0.5", "--restorers", "lbyl,regression", "--json", *HERE
    )
    assert table.code == 0, table.err
    for cell in table.json["cells"]:
        words = ("--ratio", "0.5", "--restorer", cell["restorer"], "--json")
        alone = run("prune", *shared, *words).json

        assert alone["groups"] == cell["groups"]
        assert alone["after"]["accuracy"] == cell["accuracy"]


def test_a_comparison_in_which_nothing_was_pruned_fails(run, net, images, form):
    shared = (f"{net}:make", *form, "--data", images, "--restorers", "none", "--round-to", 4, *HERE)

    result = run("compare", *shared, "--ratios", "0.01")

    assert result.code == 1
    assert "nothing was pruned: 'first': 0.01 of its 16 channels" in result.err
    assert run("compare", *shared, "--ratios", "0,0.5").code == 0


def test_files_hold_every_cell(run, net, images, form, tmp_path):
    table, document, page = (tmp_path / f"cells{s}" for s in (".csv", ".json", ".html"))
    shared = ("compare", f"{net}:make", *form, "--data", images, "--ratios", "0.5", *HERE)
    first = run(*shared, "--criterion", "l1,l2", "-o", table, "--html", page)
    assert first.code == 0, first.err
    assert "chosen by l1" in first.out
    assert "chosen by l2" in first.out
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["restorer"] for row in rows] == [
        "dense",
        *2 * ["none", "merge", "lbyl", "regression"],
    ]
    assert {row["images"] for row in rows} == {"60"}
    assert page.read_text().count("<svg") == 3  # MACs, parameters, layers

    second = run(*shared, "--json", "-o", document)
    written = json.loads(document.read_text())
    assert len(written["cells"]) == 4
    assert [accuracies(c) for c in written["cells"]] == [
        accuracies(c) for c in second.json["cells"]
    ]


def test_wrong_names_and_files_are_refused_before_the_work(run, net, images, form, tmp_path):
    shared = ("compare", f"{net}:make", *form, "--data", images)
    for words, message in (
        (("--ratios", "0.5,1.2"), "found 1.2"),
        (("--restorers", "none,lbly"), "Did you mean 'lbyl'"),
        (("--criterion", "l1,"), "--criterion: expected names"),
        (("-o", tmp_path / "cells.txt"), "--out: expected .csv or .json"),
        (("-o", tmp_path), "--out: expected a file, found the folder"),
        (("--journal", tmp_path), "--journal: expected a file, found the folder"),
        (("--seeds", "0,x"), "--seeds: expected whole numbers"),
        (("--seeds", "0", "--seed", "1"), "--seeds and --seed don't go together"),
        (("--engine", "slurm"), "expected local or ray, found 'slurm'"),
        (("--address", "auto"), "address: it is that of a Ray cluster"),
        (("--workers", "0"), "workers: expected at least 1"),
        (("--weights", "a.pth", "--weights", "b.pth"), "found 2 for 1"),
    ):
        result = run(*shared, *words)
        assert result.code == 2
        assert message in result.err
        assert result.out == ""
    assert not (tmp_path / "was-run").exists()


def test_several_networks_in_several_processes(run, net, images, form, tmp_path):
    """Their class stands in a file that every process runs for itself, and prints."""
    other = tmp_path / "other.py"
    other.write_text(net.read_text().replace("16", "20"))
    journal, page, table = (tmp_path / name for name in ("journal", "page.html", "cells.csv"))
    words = ("compare", f"{net}:make", f"{other}:make", *form, "--data", images, "--seeds", "0,1")
    words += ("--ratios", "0.5", "--criterion", "random", "--restorers", "none", "--round-to", 1)

    found = run(*words, "--json", "--workers", 2, "--journal", journal)

    assert found.code == 0, found.err
    first, second = found.json["networks"]
    assert (first["model"], second["model"]) == (f"{net}:make", f"{other}:make")
    assert [cell["seed"] for cell in first["cells"]] == [0, 1]
    assert second["cells"][0]["groups"][0]["total"] == 20
    again = run(*words, *HERE, "--journal", journal, "--html", page, "-o", table)
    assert again.code == 0, again.err
    assert "medians of 2 seeds" in again.out
    assert "other.py:make" in page.read_text()
    assert len(table.read_text().splitlines()) == 1 + 2 * 3
    refused = run(*words[:-1], 2, "--journal", journal)
    assert refused.code == 2
    assert "another sweep: settings.round_to: expected 1 as it holds, found 2" in refused.err


def test_cells_that_fail_are_told_and_fail_the_call(run, net, images, form, monkeypatch):
    from bequest.criteria import L1

    monkeypatch.setattr(L1, "_filters", lambda *_: 1 / 0)
    shared = ("compare", f"{net}:make", *form, "--data", images, "--ratios", "0.5", *HERE)
    found = run(*shared, "--criterion", "l1,l2", "--restorers", "none", "--round-to", 1)
    assert found.code == 1
    assert "1 of 2 cells failed" in found.err
    assert "chosen by l2" in found.out
    assert "unexpected ZeroDivisionError: division by zero" in found.err

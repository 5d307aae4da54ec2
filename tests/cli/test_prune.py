"""``bequest prune`` and ``bequest evaluate``: what is saved is what was measured."""

import pytest


@pytest.mark.parametrize("restorer", ["none", "lbyl"])
def test_a_saved_network_evaluates_to_the_same_numbers(run, net, images, form, tmp_path, restorer):
    out = tmp_path / "out"
    pruned = run(
        *("prune", f"{net}:make", *form, "--data", images, "--round-to", 1, "-o", out),
        *("--restorer", restorer, "--json"),
    )
    assert pruned.code == 0, pruned.err
    again = run("evaluate", out, "--model", f"{net}:make", "--data", images, "--json")
    assert again.code == 0, again.err
    assert again.json["accuracy"] == pruned.json["after"]["accuracy"]
    assert again.json["cost"] == pruned.json["after"]["cost"]
    assert pruned.json["saved"] == str(out)


def test_json_says_what_happened(run, net, images, form):
    result = run(
        "prune", f"{net}:make", *form, "--round-to", 1, "--ratio", "first=0.25,*=0", "--json"
    )
    document = result.json
    (group,) = document["groups"]
    assert (group["name"], group["kept"], group["total"]) == ("first", 12, 16)
    assert group["restored_by"] == "regression"
    assert document["recipe"]["ratio"] == {"first": 0.25, "*": 0.0}
    assert document["before"]["accuracy"] is None
    # 16→12 channels: 3·16·9 + 16 and 16·12·9 lose a quarter
    before, after = document["before"]["cost"]["params"], document["after"]["cost"]["params"]
    assert before - after == 4 * (3 * 9 + 1) + 4 * 12 * 9


def test_results_alone_are_on_the_standard_output(run, net, form):
    result = run("prune", f"{net}:make", *form, "--json")
    assert "the file prints" in result.err
    assert "the model prints" in result.err
    assert "prints" not in result.out
    assert result.json["model"].endswith("net.py:make")


def test_tables_name_layers_and_refusals(run, net, images, form):
    result = run(
        *("prune", f"{net}:make", *form, "--data", images, "--round-to", 1),
        *("--ratio", "first=0.5,nothing*=0.5"),
    )
    assert result.code == 0
    assert "8/16" in result.out
    assert "nothing*" in result.out
    assert "it matches no layer" in result.out
    assert "top-1, 60 images" in result.out
    assert "Nothing was saved" in result.err


def test_the_page_holds_every_layer(run, net, form, tmp_path):
    page = tmp_path / "page.html"
    assert run("prune", f"{net}:make", *form, "--html", page).code == 0
    text = page.read_text()
    assert "<svg" in text
    assert "first" in text
    assert "second" in text


def test_the_folder_is_looked_at_before_the_work(run, net, form, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    result = run("prune", f"{net}:make", *form, "-o", tmp_path / "full")
    assert result.code == 2
    assert "holding mine" in result.err
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--ratio", "secnd=0.5"), "'secnd': it matches no layer; did you mean 'second'"),
        (
            ("--ratio", "first=0.01"),
            "'first': 0.01 of its 16 channels rounds to none at round_to=8",
        ),
        (
            ("--strategy", "baseline", "--input-range", "0,1", "--ratio", "relu=0.5"),
            "'relu': it matches no layer",
        ),
    ],
)
def test_nothing_pruned_is_a_failure_that_says_why(run, net, form, tmp_path, words, why):
    out = tmp_path / "out"
    result = run("prune", f"{net}:make", *form, *words, "-o", out, "--json")

    assert result.code == 1
    assert f"nothing was pruned: {why}" in result.err
    assert "Warning" not in result.err
    assert result.json["groups"] == []
    assert result.json["saved"] is None
    assert not out.exists()


def test_a_ratio_of_zero_is_done_when_nothing_is_pruned(run, net, form, tmp_path):
    result = run("prune", f"{net}:make", *form, "--ratio", "0", "-o", tmp_path / "out")

    assert result.code == 0, result.err
    assert (tmp_path / "out" / "plan.json").exists()


def test_evaluate_has_no_use_for_eps_without_an_attack(run, net, images, form):
    result = run("evaluate", f"{net}:make", *form, "--data", images, "--eps", "0.1")

    assert result.code == 2
    assert "--eps goes with --attack or --certify" in result.err


def test_evaluate_times_a_pass(run, net, images, form):
    result = run(
        "evaluate", f"{net}:make", *form, "--data", images, "--latency", "--limit", 7, "--json"
    )
    assert result.json["accuracy"]["count"] == 7
    timing = result.json["latency"]
    assert 0 < timing["p10"] <= timing["median"] <= timing["p90"]
    table = run("evaluate", f"{net}:make", *form, "--data", images, "--latency")
    assert "latency, cpu" in table.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--ratio", "1.0"), 2, "expected a number in [0, 1), found 1.0"),
        (("--ratio", "x"), 2, "--ratio: expected a number"),
        (("--criterion", "l3"), 2, "Did you mean 'l2'"),
        (("--restorer", "lbly"), 2, "Did you mean 'lbyl'"),
        (("--groups", "outer"), 2, "groups: expected one of inner, all"),
        (("--scope", "x"), 2, "scope: expected one of group, global"),
        (("--round-to", "0"), 2, "round_to: expected a whole number of at least 1"),
        (("--device", "gpu"), 2, "--device: expected a device"),
        (("--html", "no-such-folder/page.html"), 2, "there is no folder no-such-folder"),
        (("--size", "4x8x8"), 2, "does not run on the example inputs of shape (1, 4, 8, 8)"),
        (("--size", "3x99999x99999"), 2, "at most 268,435,456 values"),
        (("--data", "gone.npz"), 2, "found nothing at gone.npz"),
        (("--limit", "3"), 2, "--limit says something of the images of --data; give --data PATH"),
        (("--calibrate",), 2, "--calibrate says something of the images of --data"),
        (("--calibrate", "--data", ".", "--restorer", "lbyl"), 2, "read weights alone; use"),
        (
            ("--strategy", "baseline", "--alpha", "0.1", "--input-range", "0,1"),
            2,
            "--alpha: the strategy 'baseline' scores no changes",
        ),
        (("--weights", "gone.safetensors"), 2, "found nothing at gone.safetensors"),
    ],
)
def test_wrong_calls_end_in_one_message(run, net, form, words, code, message):
    result = run("prune", f"{net}:make", *form, *words)
    assert result.code == code
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


def test_an_unknown_input_is_asked_for(run, net, images):
    assert "--size 3x224x224" in run("prune", f"{net}:make").err
    sized = run("evaluate", f"{net}:make", "--size", "3x8x8", "--data", images)
    assert sized.code == 2
    assert "--mean and --std" in sized.err
    flat = run("evaluate", f"{net}:make", "--size", "3x8", "--data", images)
    assert "expected CxHxW of one image with --data, found 3x8" in flat.err


def test_a_source_of_inputs_takes_the_place_of_the_default(run, net, form, tmp_path, monkeypatch):
    call = ("prune", f"{net}:make", *form, "--round-to", 1, "--json", "-o")
    plainly = run(*call, tmp_path / "plainly")
    named = run(*call, tmp_path / "named", "--data", "synthetic")
    assert named.code == 0, named.err
    assert "--data PATH" in named.err
    states = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plainly", "named")]
    assert states[0] == states[1]
    (low, high), fields = (-2.0, 2.0), named.json["recipe"]["inputs"]["source"]
    assert fields["value_range"] == [low, high]  # of --mean and --std
    assert "source" not in plainly.json["recipe"]["inputs"]
    few = ("--data", "synthetic(images=16, source=pink, value_range=(0, 1))")
    seen = run(*call, tmp_path / "few", *few).json["recipe"]["inputs"]
    assert seen["count"] == 16
    assert (seen["source"]["source"], seen["source"]["value_range"]) == ("pink", [0, 1])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synthetic").mkdir()  # what exists is a path
    assert "expected images, found an empty folder" in run(*call[:-1], "--data", "synthetic").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("synthetik",),
            "(synthetic, written), found nothing at synthetik and no source of that name",
        ),
        (("synthetic(imgs=3)",), "inputs 'synthetic' has no field ['imgs']"),
        (("synthetic(3)",), "expected NAME or NAME(FIELD=VALUE, ...), found 'synthetic(3)'"),
        (("synthetic(images=",), "expected NAME or NAME(FIELD=VALUE, ...)"),
        (("synthetic(images=2)(3)",), "expected NAME or NAME(FIELD=VALUE, ...)"),
        (("synthetic(images=f(3))",), "expected NAME or NAME(FIELD=VALUE, ...)"),
        (("synthetic(images=0)",), "expected images ≥ 1, found 0"),
        (("synthetic", "--restorer", "lbyl"), "--data: the criterion 'l2' and the restorer 'lbyl'"),
        (("synthetic", "--limit", "3"), "--limit says something of the images of --data"),
        (("synthetic", "--calibrate"), "--calibrate says something of the images of --data"),
        (
            ("synthetic", "--strategy", "greedy"),
            "--data synthetic and --strategy don't go together",
        ),
        (("synthetic", "--sparsity", "0.5"), "--data synthetic and --sparsity don't go together"),
    ],
)
def test_sources_that_cannot_be_had(run, net, form, words, message):
    result = run("prune", f"{net}:make", *form, "--data", *words)
    assert result.code == 2
    assert message in result.err.replace("\n", " ")
    assert "Traceback" not in result.err

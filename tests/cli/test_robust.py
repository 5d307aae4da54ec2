"""``prune --strategy`` and ``evaluate --attack``."""

from __future__ import annotations

import pytest

PROGRESSIVE = ("--strategy", "stochastic", "--step", "0.25", "--restorer", "sum")


def test_progressive_pruning_reports_what_it_guarantees_and_saves(run, net, images, form, tmp_path):
    out = tmp_path / "out"
    pruned = run(
        *("prune", f"{net}:make", *form, *PROGRESSIVE, "--input-range", "0,1", "--ratio", 0.5),
        *("--data", images, "-o", out, "--json"),
    )
    assert pruned.code == 0, pruned.err
    lower, upper = pruned.json["certified_change"]
    assert len(lower) == len(upper) == 6
    assert all(low < 0 < high for low, high in zip(lower, upper, strict=True))
    assert [step["removed"] for step in pruned.json["steps"]] == [0.25, 0.5]
    # Pixels 0 and 1 at mean 0.5 and std 0.25
    low, high = pruned.json["recipe"]["input_range"]
    assert (low, high) == ([[[-2.0]]] * 3, [[[2.0]]] * 3)

    again = run("evaluate", out, "--model", f"{net}:make", "--data", images, "--json")
    assert again.json["accuracy"] == pruned.json["after"]["accuracy"]


def test_the_table_names_outputs_and_what_has_no_bound(run, net, form):
    result = run("prune", f"{net}:make", *form, *PROGRESSIVE, "--input-range", "0,1")

    assert result.code == 0, result.err
    assert "Certified change of the outputs" in result.out
    assert "at least" in result.out


def test_attacks_are_counted_for_every_eps(run, net, images, form, tmp_path):
    out = tmp_path / "out"
    assert run("prune", f"{net}:make", *form, "-o", out).code == 0
    words = ("evaluate", out, "--model", f"{net}:make", "--data", images, "--attack", "fgsm")

    shown = run(*words, "--eps", "0,0.05")
    found = run(*words, "--eps", "0,0.05", "--json").json["robustness"]

    assert [one["eps"] for one in found] == [0, 0.05]
    assert found[0]["robust"] == found[0]["correct"] >= found[1]["robust"]
    assert "robust to fgsm, eps 0.05" in shown.out


def test_certificates_are_of_the_saved_network_beside_its_dense_one(
    run, net, images, form, tmp_path
):
    out = tmp_path / "out"
    assert run("prune", f"{net}:make", *form, "--ratio", 0.1, "--round-to", 1, "-o", out).code == 0
    words = ("evaluate", out, "--model", f"{net}:make", "--data", images, "--certify")

    shown = run(*words, "--eps", "0,0.001")
    found = run(*words, "--eps", "0,0.001", "--json").json["certificates"]

    assert shown.code == 0, shown.err
    assert "certified agreement, eps 0.001" in shown.out
    assert [one["eps"] for one in found] == [0, 0.001]
    assert found[0]["agreeing"] >= found[1]["agreeing"]
    assert 0 < found[0]["change"] < found[1]["change"]


def test_steps_of_descent_make_certificates_no_looser(run, net, images, form, tmp_path):
    out = tmp_path / "out"
    assert run("prune", f"{net}:make", *form, "--ratio", 0.5, "--round-to", 1, "-o", out).code == 0
    words = ("evaluate", out, "--model", f"{net}:make", "--data", images, "--certify", "--json")
    box = ("--eps", "0.5", "--limit", 4)

    plain, descended = (
        run(*words, *box, "--certify-steps", steps).json["certificates"][0]["change"]
        for steps in (0, 6)
    )

    assert descended < plain


def test_a_box_beyond_the_range_is_the_range(run, net, images, form, tmp_path):
    out = tmp_path / "out"
    assert run("prune", f"{net}:make", *form, "--ratio", 0.5, "--round-to", 1, "-o", out).code == 0
    words = ("evaluate", out, "--model", f"{net}:make", "--data", images, "--certify", "--json")

    found = run(*words, "--limit", 4, "--eps", "1,1e300").json["certificates"]

    assert found[0]["change"] == found[1]["change"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("OUT", "--data", "IMAGES", "--certify-steps", "3"), "goes with --certify"),
        (
            ("OUT", "--model", "MODEL", "--data", "IMAGES", "--certify", "--certify-steps", "-1"),
            "--certify-steps: expected a whole number ≥ 0, found -1",
        ),
        (("MODEL", "--data", "IMAGES", "--certify"), "a folder that bequest saved"),
        (("OUT", "--model", "MODEL", "--certify"), "give --data"),
        (("OUT", "--model", "MODEL", "--data", "IMAGES", "--certify", "--eps", "-1"), "≥ 0"),
    ],
)
def test_wrong_calls_of_certify_are_refused(run, net, images, form, tmp_path, words, message):
    named = {"MODEL": f"{net}:make", "IMAGES": images, "OUT": tmp_path / "out"}
    assert run("prune", named["MODEL"], *form, "-o", named["OUT"]).code == 0

    result = run("evaluate", *(named.get(word, word) for word in words))

    assert result.code == 2
    assert message in result.err


def test_a_dense_network_of_random_weights_is_refused(run, net, images, form, tmp_path):
    net.write_text(
        net.read_text() + "\n\nimport torch\n\ndef drawn():\n    model = make()\n    torch.seed()\n"
        "    torch.nn.init.normal_(next(model.parameters()))\n    return model\n"
    )
    out = tmp_path / "out"
    assert run("prune", f"{net}:drawn", *form, "-o", out).code == 0

    result = run("evaluate", out, "--model", f"{net}:drawn", "--data", images, "--certify")

    assert result.code == 2
    assert "makes other weights whenever it is called" in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--strategy", "stochastic"), "--input-range LOW,HIGH"),
        (("--strategy", "stochastic", "--input-range", "1,0"), "lower one first"),
        (("--strategy", "stochastic", "--input-range", "0"), "two numbers"),
        (("--strategy", "stochastik", "--input-range", "0,1"), "Did you mean 'stochastic'"),
        (("--input-range", "0,1"), "goes with --strategy"),
        (("--strategy", "greedy", "--input-range", "0,1", "--groups", "all"), "inner layers alone"),
        (("--strategy", "baseline", "--input-range", "0,1", "--ratio", "0.7"), "half|reaches 0.5"),
        (("--strategy", "greedy", "--input-range", "0,1", "--step", "2"), "step"),
        (("--strategy", "greedy", "--input-range", "0,1", "--target", "macs:0.5"), "--target"),
        (("--strategy", "greedy", "--input-range", "0,1", "--criterion", "l2"), "and --criterion"),
        (("--strategy", "greedy", "--input-range", "0,1", "--scope", "global"), "and --scope"),
        (("--strategy", "greedy", "--input-range", "0,1", "--round-to", "4"), "and --round-to"),
        (("--step", "0.5"), "--step goes with --strategy"),
        (("--alpha", "0.5"), "--alpha goes with --strategy"),
    ],
)
def test_wrong_calls_of_prune_are_refused(run, net, form, words, message):
    result = run("prune", f"{net}:make", *form, *words)

    assert result.code == 2
    assert any(part in result.err for part in message.split("|"))
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--attack", "fgms"), "Did you mean 'fgsm'"),
        (("--attack", "fgsm", "--eps", "big"), "0.01,0.05"),
        (("--attack", "pgd", "--eps", "-1"), "≥ 0"),
    ],
)
def test_wrong_calls_of_evaluate_are_refused(run, net, images, form, words, message):
    result = run("evaluate", f"{net}:make", *form, "--data", images, *words)

    assert result.code == 2
    assert message in result.err

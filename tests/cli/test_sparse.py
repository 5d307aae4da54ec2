import pytest


@pytest.fixture
def prune(run, net, form):
    def call(*words):
        return run("prune", f"{net}:make", *form, *words)

    return call


def test_layers_sums_and_accuracies_are_shown(prune, images, tmp_path):
    done = prune("--sparsity", 0.5, "--recover", "signed", "--data", images)
    assert done.code == 0, done.err
    for word in ("216/432", "864/1,728", "36/72", "recovered", "multiplications, one input"):
        assert word in done.out, word
    assert "Nothing was saved" in done.err


def test_a_page_with_histograms(prune, tmp_path):
    page = tmp_path / "page.html"
    done = prune("--sparsity", 0.7, "--mask", "global", "--html", page)
    assert done.code == 0, done.err
    text = page.read_text()
    assert "70 % of the weights pruned (mask: global), in their place zeros" in text
    assert text.count("<svg") == 1
    assert 'aria-label="Sizes of the weights of every layer' in text


@pytest.mark.parametrize("mask", ["layer", "filter", "global", "2:4", "whole-filter", "spectrum"])
def test_every_mask_can_be_saved_and_evaluated(run, prune, net, images, tmp_path, mask):
    out = tmp_path / "out"
    done = prune("--sparsity", 0.5, "--mask", mask, "--skip", "first", "-o", out, "--json")
    assert done.code == 0, done.err
    stay = {one["layer"]: one["stay"] / one["weights"] for one in done.json["layers"]}
    assert stay["first"] == 1
    assert stay["second"] < 1
    done = run("evaluate", out, "--model", f"{net}:make", "--data", images)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sparsity", 1.5), "sparsity: expected a number in [0, 1), found 1.5"),
        (("--recover", "filter"), "--recover goes with --sparsity S"),
        (("--mask", "global"), "--mask goes with --sparsity S"),
        (("--skip", "first"), "--skip goes with --sparsity S"),
        (("--sparsity", 0.5, "--ratio", 0.3), "--sparsity and --ratio don't go together"),
        (("--sparsity", 0.5, "--criterion", "l1"), "--sparsity and --criterion"),
        (("--sparsity", 0.5, "--target", "macs:0.5"), "--sparsity and --target"),
        (("--sparsity", 0.5, "--recover", "row"), "scope: expected one of filter, layer, signed"),
        (("--sparsity", 0.5, "--mask", "row"), "mask: expected layer, filter, global"),
        (("--sparsity", 0.6, "--mask", "2:4"), "a 2:4 mask prunes 0.5 of the weights"),
        (("--sparsity", 0.5, "--mask", "2:4"), "'first' has 3 inputs per filter"),
        (("--sparsity", 0.5, "--skip", "third"), "'third' matches no layer"),
        (
            ("--sparsity", 0.5, "--mask", "spectrum", "--recover", "filter"),
            "there is nothing to recover",
        ),
    ],
)
def test_wrong_calls(prune, tmp_path, words, message):
    out = tmp_path / "out"
    done = prune(*words, "-o", out)
    assert done.code == 2
    assert message in done.err
    assert not out.exists()

import json

import numpy as np
import pytest

from bequest.hypersphere import Recipe

SETTING = ("--epochs", 2, "--batch-size", 20, "--augment", "none", "--seed", 1)


@pytest.fixture
def trained(run, net, images, form, tmp_path):
    out = tmp_path / "out"
    done = run("train", f"{net}:make", "--data", images, *form, *SETTING, "-o", out)
    assert done.code == 0, done.err
    return done, out


def test_the_readme_s_three_lines_work_on_the_zoo(run, tmp_path):
    data = tmp_path / "digits.npz"
    generator = np.random.default_rng(0)
    np.savez(data, x=generator.integers(0, 256, (40, 8, 8), dtype=np.uint8), y=np.arange(40) % 10)
    out, sparse = tmp_path / "out", tmp_path / "sparse"
    words = ("--hyperspherical", "--sparsity", 0.5, "--epochs", 1, "--batch-size", 20, "-o", out)
    done = run("train", "zoo:vgg-digits", "--data", data, *words, "--validation", data, "--json")
    assert done.code == 0, done.err
    assert done.json["recipe"]["sparsity"] == 0.5
    assert done.json["recipe"]["lr"] == Recipe(epochs=1).lr
    assert [one["epoch"] for one in done.json["epochs"]] == [1]
    assert run("evaluate", out, "--data", data).code == 0
    words = ("--sparsity", 0.5, "--recover", "filter", "--data", data, "-o", sparse, "--json")
    pruned = run("prune", out, *words)
    assert pruned.code == 0, pruned.err
    assert set(pruned.json["accuracy"]) == {"dense", "pruned", "recovered"}
    evaluated = run("evaluate", sparse, "--data", data, "--json")
    assert evaluated.json["accuracy"] == pruned.json["accuracy"]["recovered"]
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (out, sparse)]
    assert sizes[1] < 0.6 * sizes[0]
    # The sparse artefact stands on its own.
    (out / "plan.json").unlink()
    assert run("evaluate", sparse, "--data", data).code == 0


def test_it_says_what_it_did_and_how_to_go_on(trained):
    done, out = trained
    assert "epoch 2 of 2: loss" in done.err
    assert f"bequest prune {out} --model" in done.err
    assert "--sparsity 0.5" in done.err
    assert "penalty" in done.out
    log = (out / "training" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2]


def test_a_run_without_its_last_step_is_resumed(run, net, images, form, trained, tmp_path):
    _, whole = trained
    out = tmp_path / "again"
    words = ("train", f"{net}:make", "--data", images, *form, *SETTING, "-o", out)
    assert run(*words).code == 0
    saved = (out / "model.safetensors").read_bytes()
    assert saved == (whole / "model.safetensors").read_bytes()
    for name in ("model.safetensors", "plan.json"):
        (out / name).unlink()  # as if it had been killed before
    assert "is of an earlier run; resume it" in run(*words).err
    assert run(*words, "--resume").code == 0
    assert (out / "model.safetensors").read_bytes() == saved
    changed = run(*words[:-2], "--lr", 0.2, "-o", out, "--resume")
    assert changed.code == 2
    assert "found" in changed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sparsity", 1), "sparsity: expected a number in [0, 1), found 1.0"),
        (("--accelerator", "abacus"), "--accelerator abacus, --devices 1"),
        (("--mask", "rows"), "mask: expected layer"),
        (("--form", "square"), "form: expected one of cosine, two-term"),
        (("--plain", "--mask", "filter"), "--mask says something of the penalty, which a sparsity"),
        (("--sparsity", 0, "--penalty", 1), "--penalty says something of the penalty"),
        (("--sparsity", 0, "--penalty-warmup", 0.5), "--penalty-warmup says something"),
        (("--penalty-warmup", 1.5), "penalty_warmup"),
        (("--augment", "rotate"), "augment: expected names of crop, flip"),
        (("--precision", "8"), "precision: expected one of 32-true"),
        (("--batch-size", 100), "batch_size: expected at most the 60 images, found 100"),
        (("--resume",), "resume: expected the checkpoint of an earlier run"),
        (("--validation", "nowhere.npz"), "found nothing at nowhere.npz"),
    ],
)
def test_wrong_calls(run, net, images, form, tmp_path, words, message):
    out = tmp_path / "out"
    done = run("train", f"{net}:make", "--data", images, *form, "--epochs", 1, "-o", out, *words)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert not (out / "plan.json").exists()


def test_a_folder_with_other_files_is_left_alone(run, net, images, form, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    done = run("train", f"{net}:make", "--data", images, *form, "--epochs", 1, "-o", out)
    assert done.code == 2
    assert "mine.txt" in done.err
    assert not (out / "training").exists()


def test_a_loss_that_is_not_finite_fails_with_the_step(run, net, images, form, tmp_path):
    out = tmp_path / "out"
    words = ("--epochs", 3, "--batch-size", 20, "--lr", "1e30", "-o", out)
    done = run("train", f"{net}:make", "--data", images, *form, *words)
    assert done.code == 1
    assert "NaN or infinite at step" in done.err
    assert (out / "training" / "stopped.safetensors").is_file()


def test_too_few_outputs_for_the_labels(run, net, images, form, tmp_path):
    done = run(
        *("train", "zoo:vgg-digits", "--data", images, "--epochs", 1, "--batch-size", 20),
        *("-o", tmp_path / "ok", "--augment", "none"),
    )
    assert done.code == 0, done.err  # six classes of ten
    few = tmp_path / "few.npz"
    np.savez(few, x=np.zeros((20, 8, 8, 3), np.uint8), y=np.arange(20))
    out = tmp_path / "out"
    done = run("train", f"{net}:make", "--data", few, *form, *SETTING, "-o", out)
    assert done.code == 1
    assert "labels 0 to 5 for a model of 6 classes" in done.err

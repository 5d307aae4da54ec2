"""``bequest demo``: trains once, keeps what it trained, replaces its own files and no others."""

from functools import partial

import numpy as np
import pytest

from bequest import config
from bequest.cli import demonstration, digits
from bequest.cli.output import Output

pytest.importorskip("sklearn", reason="the demo's digits come with scikit-learn")


@pytest.fixture(autouse=True)
def _short(monkeypatch, tmp_path):
    """A short training, one ratio, and a cache of its own."""
    training = partial(digits.Training, epochs=8)
    monkeypatch.setattr(demonstration, "Training", training)
    monkeypatch.setattr(demonstration, "_RATIOS", (0.5,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def cached(tmp_path):
    (path,) = (tmp_path / "cache" / "bequest").iterdir()
    return path


def test_the_whole_demo_twice(run, tmp_path):
    out = tmp_path / "demo"
    first = run("demo", "-o", out, "--json")
    assert first.code == 0, first.err
    document = first.json
    assert document["dense"]["accuracy"]["count"] == 597
    assert document["dense"]["accuracy"]["top1"] > 90
    assert {c["restorer"] for c in document["cells"]} == set(config.names("restorer"))
    assert document["reloaded"] == document["saved"]["accuracy"]
    assert (out / "report.html").read_text().count("<svg") == 3  # MACs, parameters, layers

    trained = cached(tmp_path).stat().st_mtime_ns
    second = run("demo", "-o", out)
    assert second.code == 0, second.err
    assert cached(tmp_path).stat().st_mtime_ns == trained
    assert "earlier run" in second.err
    assert f"{document['dense']['accuracy']['top1']:.2f}" in second.out

    data = ("--data", out / "held-out.npz")
    pruned = run("evaluate", out / "pruned", *data, "--json").json
    assert pruned["accuracy"] == document["reloaded"]
    dense = run(
        "evaluate", "zoo:vgg-digits", "--weights", out / "dense.safetensors", *data, "--json"
    ).json
    assert dense["accuracy"] == document["dense"]["accuracy"]


def test_a_folder_with_other_files_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    result = run("demo", "-o", tmp_path / "mine")
    assert result.code == 2
    assert "holding thesis.tex" in result.err
    (tmp_path / "mine" / "thesis.tex").rename(tmp_path / "file")
    assert run("demo", "-o", tmp_path / "file").code == 2


def truncate(path):
    path.write_bytes(path.read_bytes()[:1000])


def scramble(path):
    """Sound in form, but with values that know no digits."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    save_file({name: tensor.flip(0).contiguous() for name, tensor in tensors.items()}, path)


@pytest.mark.parametrize("damage", [truncate, scramble])
def test_a_damaged_cache_is_trained_anew(damage, tmp_path, capsys):
    training = digits.Training(epochs=4)
    data = digits.load_digits(training)
    with Output(as_json=False) as output:
        before = digits.trained_network(data, training, output).state_dict()
        damage(cached(tmp_path))
        after = digits.trained_network(data, training, output).state_dict()
    assert "training again" in capsys.readouterr().err
    assert all(before[name].equal(after[name]) for name in before)


def test_the_split_is_fair_and_holds_every_image_once():
    data = digits.load_digits(digits.Training())
    (x_train, y_train), (x_test, y_test) = data.train, data.test
    assert len(x_train) + len(x_test) == 1797
    assert len(x_test) == len(y_test) == 597
    assert np.abs(np.bincount(y_train) / 1200 - np.bincount(y_test) / 597).max() < 0.002
    assert x_train.dtype == np.uint8
    assert x_train.max() == 255

"""MODEL: what it may be, what is refused, and what is never run."""

import json
import re
import shutil
from dataclasses import dataclass

import pytest
import torch

import bequest
from bequest import config, zoo
from bequest.cli.inputs import InputForm
from bequest.cli.models import open_model
from bequest.cli.sources import base
from bequest.cli.steps import Settings, save_with_origin
from bequest.errors import ArtifactError, ModelError, UsageError
from bequest.restorers.by_walk import ByWalk
from bequest.restorers.refit import Change, Seen

CPU = torch.device("cpu")


def saved(folder, model, size, spec):
    """An artefact of ``model`` whose plan says that ``spec`` opens the dense network."""
    form = InputForm(size)
    settings = Settings("inner", "group", 1, 0)
    pruned, _ = settings.prune(model, form.example(CPU), 0.5, "l2", "lbyl")
    save_with_origin(pruned, folder, spec, form)
    return pruned.model.eval()


def lenet():
    return zoo.create("lenet-300-100").eval()


def test_a_zoo_network_needs_weights_unless_only_looked_at():
    opened = open_model("zoo:lenet-300-100", device=CPU, trained=False)
    assert opened.form.size == (1, 28, 28)
    assert not opened.model.training
    with pytest.raises(UsageError, match=r"carry no weights.*--weights FILE"):
        open_model("zoo:lenet-300-100", device=CPU)


def test_weights_are_loaded(tmp_path):
    from safetensors.torch import save_file

    model = lenet()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    opened = open_model("zoo:lenet-300-100", weights=tmp_path / "w.safetensors", device=CPU)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(opened.model(x), model(x))


def test_a_factory_in_a_file(net):
    opened = open_model(f"{net}:make", device=CPU)
    assert type(opened.model).__name__ == "Net"
    assert opened.base == f"{net}:make"


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        ("mak", UsageError, "Did you mean 'make'"),
        ("no_module", UsageError, "returned int; expected a torch.nn.Module"),
        ("fails", ModelError, r"line \d+: NameError: name 'undefined'"),
    ],
)
def test_a_factory_that_fails_is_named(net, factory, error, message):
    with pytest.raises(error, match=message):
        open_model(f"{net}:{factory}", device=CPU)


@pytest.mark.parametrize("text", ["def f(:", "import nothing_of_that_name", "raise SystemExit(0)"])
def test_a_file_that_fails_is_named(tmp_path, text):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ModelError, match=r"running .*broken\.py failed, line 1"):
        open_model(f"{path}:make", device=CPU)


def test_a_file_imports_what_lies_beside_it(tmp_path):
    (tmp_path / "part_of_the_net.py").write_text("WIDTH = 7")
    (tmp_path / "main_net.py").write_text(
        "from torch import nn\nfrom part_of_the_net import WIDTH\n"
        "def make(): return nn.Linear(WIDTH, 2)"
    )
    opened = open_model(f"{tmp_path / 'main_net.py'}:make", device=CPU)
    assert opened.model.in_features == 7


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("onnx:resnet50", "which is none of them"),
        ("resnet56", "Did you mean 'zoo:resnet56'"),
        ("net.py", "'net.py:FACTORY'"),
        ("", "expected hf:ID"),
    ],
)
def test_another_word_is_refused_with_the_forms(spec, hint):
    with pytest.raises(
        UsageError, match=r"expected hf:ID, .*zoo:NAME, FILE\.py:FACTORY, or a folder"
    ) as e:
        open_model(spec, device=CPU)
    assert hint in str(e.value)


def test_a_source_of_models_needs_but_to_be_registered(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_SOURCES", dict(base._SOURCES))

    @base.source("mine:WIDTH")
    def open_mine(word, published):
        hidden, classes = torch.nn.Linear(4, int(word)), torch.nn.Linear(int(word), 2)
        return torch.nn.Sequential(hidden, classes), InputForm((4,))

    pruned = saved(tmp_path / "out", open_model("mine:8", device=CPU).model, (4,), "mine:8")
    x = torch.rand(2, 4)
    assert torch.equal(open_model(str(tmp_path / "out"), device=CPU).model(x), pruned(x))
    with pytest.raises(UsageError, match=r"expected hf:ID, mine:WIDTH, timm:NAME"):
        open_model("yours:8", device=CPU)


def test_a_saved_folder_is_rebuilt_from_its_plan(tmp_path):
    pruned = saved(tmp_path / "out", lenet(), (1, 28, 28), "zoo:lenet-300-100")
    opened = open_model(str(tmp_path / "out"), device=CPU)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(opened.model(x), pruned(x))
    assert opened.form.size == (1, 28, 28)


def test_an_artefact_of_an_artefact_needs_none_of_the_earlier_folders(tmp_path):
    spec, model = "zoo:lenet-300-100", lenet()
    for name in ("once", "twice", "thrice"):
        last = saved(tmp_path / name, model, (1, 28, 28), spec)
        opened = open_model(str(tmp_path / name), device=CPU)
        spec, model = opened.spec, opened.model
    shutil.rmtree(tmp_path / "once")
    shutil.rmtree(tmp_path / "twice")
    (tmp_path / "thrice").rename(tmp_path / "moved")
    opened = open_model(str(tmp_path / "moved"), device=CPU)
    x = torch.rand(2, 1, 28, 28)
    assert opened.spec == "zoo:lenet-300-100"
    assert torch.equal(opened.model(x), last(x))


def test_an_artefact_of_an_artefact_in_a_file(tmp_path, net):
    spec = f"{net}:make"
    saved(tmp_path / "once", open_model(spec, device=CPU).model, (3, 8, 8), spec)
    first = open_model(str(tmp_path / "once"), base=spec, device=CPU)
    twice = saved(tmp_path / "twice", first.model, (3, 8, 8), first.spec)
    shutil.rmtree(tmp_path / "once")
    with pytest.raises(UsageError, match=rf"--model {re.escape(spec)}"):
        open_model(str(tmp_path / "twice"), device=CPU)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(
        open_model(str(tmp_path / "twice"), base=spec, device=CPU).model(x), twice(x)
    )


def test_a_chain_of_folders_that_an_earlier_version_saved(tmp_path):
    """Each plan describes its own step and names the folder before it."""
    saved(tmp_path / "once", lenet(), (1, 28, 28), "zoo:lenet-300-100")
    model = bequest.load(tmp_path / "once", lenet())
    del vars(model)["_bequest_lineage"]
    twice = saved(tmp_path / "twice", model, (1, 28, 28), str(tmp_path / "once"))
    x = torch.rand(2, 1, 28, 28)
    opened = open_model(str(tmp_path / "twice"), device=CPU)
    assert torch.equal(opened.model(x), twice(x))
    with pytest.raises(
        ArtifactError, match=r"pruned before: pass bequest\.load\('.*once', fresh_m"
    ):
        bequest.load(tmp_path / "twice", lenet())
    thrice = saved(tmp_path / "thrice", opened.model, (1, 28, 28), opened.spec)
    shutil.rmtree(tmp_path / "once")
    shutil.rmtree(tmp_path / "twice")
    assert torch.equal(open_model(str(tmp_path / "thrice"), device=CPU).model(x), thrice(x))


def test_code_that_a_plan_names_is_never_run(tmp_path, net):
    spec = f"{net}:make"
    pruned = saved(tmp_path / "out", open_model(spec, device=CPU).model, (3, 8, 8), spec)
    (tmp_path / "was-run").unlink()
    with pytest.raises(UsageError, match=r"never run because a saved plan names it.*--model"):
        open_model(str(tmp_path / "out"), device=CPU)
    assert not (tmp_path / "was-run").exists()

    opened = open_model(str(tmp_path / "out"), base=spec, device=CPU)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(opened.model(x), pruned(x))


def test_a_plan_without_a_model_asks_for_it(tmp_path):
    pruned = bequest.prune(lenet(), torch.zeros(1, 1, 28, 28), progress=False)
    pruned.save(tmp_path / "out")
    with pytest.raises(UsageError, match="does not say which network"):
        open_model(str(tmp_path / "out"), device=CPU)
    opened = open_model(str(tmp_path / "out"), base="zoo:lenet-300-100", device=CPU)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(opened.model(x), pruned.model.eval()(x))


def test_plans_that_name_each_other_end(tmp_path):
    saved(tmp_path / "out", lenet(), (1, 28, 28), str(tmp_path / "out"))
    with pytest.raises(ArtifactError, match="expected a dense network at the end"):
        open_model(str(tmp_path / "out"), device=CPU)


def test_options_that_do_not_go_with_the_model(tmp_path):
    saved(tmp_path / "out", lenet(), (1, 28, 28), "zoo:lenet-300-100")
    with pytest.raises(UsageError, match=r"--weights: .* holds its own weights"):
        open_model(str(tmp_path / "out"), weights=tmp_path / "w.safetensors", device=CPU)
    with pytest.raises(UsageError, match="--model goes with a folder"):
        open_model("zoo:lenet-300-100", base="zoo:lenet-300-100", device=CPU)


def test_the_form_of_the_input_survives_json():
    form = InputForm((3, 32, 32), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), 0.875, "bicubic", 30)
    assert InputForm.from_json(json.loads(json.dumps(form.to_json()))) == form
    assert InputForm.from_json(json.loads(json.dumps(InputForm().to_json()))) == InputForm()


@pytest.mark.parametrize(
    "change",
    [
        {"size": [3, "32", 32]},
        {"size": [0]},
        {"mean": "0.5"},
        {"std": [None]},
        {"crop": None},
        {"interpolation": 3},
        {"vocabulary": 0},
        {"x": 1},
    ],
)
def test_a_forged_form_is_refused(change):
    with pytest.raises(ArtifactError, match=r"recipe\.input"):
        InputForm.from_json({**InputForm((3, 32, 32)).to_json(), **change})


def test_a_prefix_that_is_taken_or_no_prefix_is_refused():
    with pytest.raises(ValueError, match=r"'zoo:' is taken by bequest\.cli\.sources\.zoo"):
        base.source("zoo:OTHER")(lambda word, published: None)
    with pytest.raises(ValueError, match="expected 'PREFIX:WORD', found 'noform'"):
        base.source("noform")


@dataclass(frozen=True)
class Ranged(ByWalk):
    """Has a range of its own, whatever the network reads."""

    value_range: tuple[float, float] = (-3.0, 3.0)

    def refit(self, seen: Seen) -> Change:
        return Change()


@pytest.mark.parametrize("told", [None, (0.0, 1.0)])
def test_a_restorers_own_range_is_not_overwritten(told, monkeypatch):
    monkeypatch.setitem(config._REGISTRY["restorer"], "ranged", Ranged)
    model, x = zoo.create("vgg-digits").eval(), torch.zeros(1, 1, 8, 8)
    found, _ = Settings("inner", "group", 1, 0).prune(
        model, x, {"features.0": 0.5}, "l2", "ranged", value_range=told
    )
    assert found.plan.recipe["restorer"]["value_range"] == [-3.0, 3.0]

"""Networks of timm, torchvision and transformers: opened by name, read as their libraries say."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from bequest.cli.models import open_model
from bequest.cli.sources import library
from bequest.cli.sources.library import reason
from bequest.errors import MissingExtraError, ModelError, UsageError
from tests.timm_support import name_missing_operators, require

CPU = torch.device("cpu")


@pytest.fixture
def timm():
    return require("timm")


@pytest.fixture
def models():
    return require("torchvision.models")


@pytest.fixture
def transformers():
    name_missing_operators()
    return pytest.importorskip("transformers", reason="needs bequest[hf]")


@pytest.fixture
def vit(tmp_path, transformers):
    """A folder with a small image network, as transformers saves it."""
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=16,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=5,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    processor = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.2, 0.2],
        "resample": 3,
    }
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "vit"


def test_timm(timm, tmp_path):
    made = timm.create_model("resnet10t", num_classes=7).eval()
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    spec = "timm:resnet10t,num_classes=7"
    opened = open_model(spec, weights=tmp_path / "w.safetensors", device=CPU)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(opened.model(x), made(x))
    recorded = timm.get_pretrained_cfg("resnet10t")
    form = opened.form
    assert form.size == recorded.input_size
    assert (form.mean, form.std) == (recorded.mean, recorded.std)
    assert (form.crop, form.interpolation) == (recorded.crop_pct, recorded.interpolation)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnet5", r"timm has no network 'resnet5'.*'resnet50'"),
        ("timm:resnet18,classes", r"KEY=NUMBER.*found 'classes'"),
        ("timm:resnet18,checkpoint_path='x'", "found \"checkpoint_path='x'\""),
        ("timm:", "timm has no network ''"),
    ],
)
def test_a_wrong_word_for_timm(timm, spec, message):
    with pytest.raises(UsageError, match=message):
        open_model(spec, device=CPU, trained=False)


def test_a_setting_that_the_network_does_not_take(timm):
    with pytest.raises(ModelError, match="can't be made: TypeError"):
        open_model("timm:resnet10t,no_such_setting=1", device=CPU, trained=False)


def test_weights_that_cannot_be_fetched(timm, monkeypatch):
    def offline(*_, pretrained, **__):
        assert pretrained
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match=r"can't be fetched or read: .*not known.*--weights FILE"):
        open_model("timm:resnet10t", device=CPU)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_torchvision(models, tmp_path):
    made = models.get_model("resnet18", weights=None, num_classes=3).eval()
    torch.save(made.state_dict(), tmp_path / "w.pth")
    spec = "torchvision:resnet18,num_classes=3"
    opened = open_model(spec, weights=tmp_path / "w.pth", device=CPU)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(opened.model(x), made(x))
    assert opened.form.size == (3, 224, 224)
    assert opened.form.crop == pytest.approx(224 / 256)
    assert opened.form.mean == (0.485, 0.456, 0.406)
    with pytest.raises(UsageError, match=r"torchvision has no network 'resnet1'.*'resnet18'"):
        open_model("torchvision:resnet1", device=CPU)


def test_hugging_face_images(vit, transformers):
    made = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    opened = open_model(f"hf:{vit}", device=CPU)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(opened.model(x).logits, made(x).logits)
    form = opened.form
    assert (form.size, form.mean, form.std) == ((3, 32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert (form.crop, form.interpolation, form.vocabulary) == (1.0, "bicubic", None)


def test_hugging_face_crops_as_its_processor_says(vit):
    path = vit / "preprocessor_config.json"
    processor = {"size": {"shortest_edge": 64}, "crop_size": 32, "do_center_crop": True}
    path.write_text(json.dumps(processor))
    form = open_model(f"hf:{vit}", device=CPU, trained=False).form
    assert (form.size, form.crop, form.mean) == ((3, 32, 32), 0.5, None)
    path.unlink()
    form = open_model(f"hf:{vit}", device=CPU, trained=False).form
    assert (form.size, form.mean) == ((3, 32, 32), None)


def test_a_hugging_face_network_is_pruned_saved_and_evaluated(vit, tmp_path, run):
    out = tmp_path / "out"
    pruned = run("prune", f"hf:{vit}", "--ratio", "0.5", "-o", out)
    assert pruned.code == 0, pruned.err
    x = torch.zeros(4, 8, 8, 3, dtype=torch.uint8).numpy()
    import numpy as np

    np.savez(tmp_path / "images.npz", x=x, y=np.arange(4))
    evaluated = run("evaluate", out, "--data", tmp_path / "images.npz", "--json")
    assert evaluated.code == 0, evaluated.err
    assert evaluated.json["accuracy"]["count"] == 4
    exported = run("export", out, "-o", tmp_path / "vit.onnx", "--batch-size", "2", "--json")
    assert exported.code == 0, exported.err
    assert exported.json["difference"] <= 1e-4


def test_hugging_face_texts(tmp_path, transformers):
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    opened = open_model(f"hf:{tmp_path / 'bert'}", device=CPU)
    assert (opened.form.size, opened.form.vocabulary) == ((24,), 50)
    example = opened.form.overridden("7", None, None).example(CPU)
    assert (example.dtype, example.shape) == (torch.int64, (1, 7))
    assert opened.model(example).last_hidden_state.shape == (1, 7, 16)
    for scale in (("0.5", None), (None, "0.5")):
        with pytest.raises(UsageError, match=r"--mean, --std: expected none, .* reads tokens"):
            opened.form.overridden(None, *scale)


def test_hugging_face_refusals(vit, tmp_path, transformers):
    with pytest.raises(UsageError, match=r"expected a folder with a config\.json"):
        open_model("hf:./nothing", device=CPU)
    config = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps({**config, "architectures": ["OwnNetwork"]}))
    with pytest.raises(ModelError, match=r"class OwnNetwork.*code .* is never run"):
        open_model(f"hf:{vit}", device=CPU)
    (vit / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(ModelError, match="the weights lack tensors of the network, such as"):
        open_model(f"hf:{vit}", device=CPU)
    (vit / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"expected a folder with a readable config\.json"):
        open_model(f"hf:{vit}", device=CPU)


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("timm:resnet18", "timm", "vision"),
        ("torchvision:resnet18", "torchvision", "vision"),
        ("hf:x/y", "transformers", "hf"),
    ],
)
def test_a_library_that_is_missing_names_its_extra(monkeypatch, spec, package, extra):
    def absent(_):
        raise ModuleNotFoundError(name=package)

    monkeypatch.setattr(library.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*bequest\[{extra}\]"):
        open_model(spec, device=CPU)


def test_a_library_that_does_not_load(monkeypatch):
    def broken(_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(library.importlib, "import_module", broken)
    with pytest.raises(ModelError, match=r"can't be imported beside PyTorch .*nms does not exist"):
        open_model("torchvision:resnet18", device=CPU)


@pytest.fixture
def llama(tmp_path, transformers):
    """A folder with a small language model, and a file of a tokeniser."""
    from tests.language.networks import causal

    causal("llama", num_hidden_layers=1).save_pretrained(tmp_path / "llama")
    (tmp_path / "llama" / "tokenizer.json").write_text("{}")
    return tmp_path / "llama"


def test_a_folder_for_transformers_is_written(llama, transformers, tmp_path, run):
    out = tmp_path / "out"
    options = ("--ratio", "0.3", "--restorer", "none", "--format", "hf", "-o", out)
    pruned = run("prune", f"hf:{llama}", *options, "--json")
    assert pruned.code == 0, pruned.err
    assert pruned.json["recipe"]["uniform"] is True
    auto = transformers.AutoModelForCausalLM
    model, info = auto.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert (model.config.intermediate_size, model.config.num_attention_heads) == (48, 4)
    assert (out / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--format", "onnx", "-o", "OUT"), "expected bequest or hf, found 'onnx'"),
        (("--format", "hf"), "give -o FOLDER"),
        (("--format", "hf", "-o", "OUT", "--scope", "global"), "--format and --scope"),
        (("--format", "hf", "-o", "OUT", "--sparsity", "0.5"), "--format and --sparsity"),
    ],
)
def test_what_does_not_go_with_a_folder_for_transformers(options, found, tmp_path, run):
    options = [tmp_path / "out" if one == "OUT" else one for one in options]
    refused = run("prune", "zoo:resnet20", *options)
    assert refused.code == 2
    assert found in " ".join(refused.err.split())


def test_other_networks_are_no_folder_for_transformers(net, tmp_path, run):
    options = ("--format", "hf", "-o", tmp_path / "out")
    refused = run("prune", f"{net}:make", *options)
    assert refused.code == 2
    assert "transformers' own classes" in " ".join(refused.err.split())
    assert not (tmp_path / "out").exists()


def test_of_an_import_that_failed_the_cause_is_told():
    """transformers says of any class that it could not be imported, whatever is broken."""
    cause = RuntimeError("operator torchvision::nms does not exist")
    middle = ModuleNotFoundError("Could not import module 'image_processing'")
    middle.__cause__ = cause
    outer = ImportError("Could not import module 'ViT'. Are this object's requirements defined?")
    outer.__cause__ = middle
    assert reason(outer) == "RuntimeError: operator torchvision::nms does not exist"

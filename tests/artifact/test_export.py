"""ONNX files: the same numbers as PyTorch's, or no file."""

import numpy as np
import pytest
import torch
from torch import nn

import bequest
from bequest.artifact import export as module
from bequest.errors import MissingExtraError, ModelError, UsageError
from tests.networks import NETWORKS, Plain, SqueezeExcite, TwoOutputs, randomise

pytest.importorskip("onnxscript", reason="onnxscript is not installed; bequest[onnx] brings it")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs bequest[onnx]")


def halved(network):
    example = torch.zeros(NETWORKS[network])
    return bequest.prune(randomise(network()), example, 0.5, round_to=1, progress=False).model


@pytest.mark.parametrize("network", [SqueezeExcite, TwoOutputs], ids=lambda n: n.__name__)
def test_a_pruned_network_computes_the_same_in_onnxruntime(tmp_path, network):
    model = halved(network).train()
    path = tmp_path / "model.onnx"
    shape = NETWORKS[network]
    assert bequest.export(model, torch.zeros(shape), path) <= module.TOLERANCE
    assert model.training
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]
    x = torch.randn(shape)
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = model.eval()(x)
    expected = expected.values() if isinstance(expected, dict) else [expected]
    for value, tensor in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, tensor.numpy(), atol=1e-5)


def test_tokens_by_keyword(tmp_path):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(20, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, input_ids, scale):
            return self.head(self.embed(input_ids).mean(1) * scale)

    inputs = {"input_ids": torch.tensor([[3, 19, 0]]), "scale": torch.ones(1)}
    assert bequest.export(Words(), inputs, tmp_path / "words.onnx") <= module.TOLERANCE


def test_a_file_that_computes_something_else_does_not_appear(tmp_path, monkeypatch):
    true = module._run
    monkeypatch.setattr(
        module, "_run", lambda *given: [value + np.float32(0.01) for value in true(*given)]
    )
    (tmp_path / "model.onnx").write_text("an earlier file")
    with pytest.raises(ModelError, match="computes something else than PyTorch"):
        bequest.export(randomise(Plain()), torch.zeros(1, 3, 8, 8), tmp_path / "model.onnx")
    assert [item.read_text() for item in tmp_path.iterdir()] == ["an earlier file"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_no_agreement(value):
    found, expected = [np.array([value])], [torch.zeros(1)]
    assert not module._difference(found, expected) <= module.TOLERANCE


def test_what_is_refused(tmp_path, monkeypatch):
    model, x = randomise(Plain()), torch.zeros(1, 3, 8, 8)
    for path in (tmp_path / "model.pt2", tmp_path / "none" / "model.onnx"):
        with pytest.raises(UsageError, match=r"expected NAME\.onnx in a folder"):
            bequest.export(model, x, path)
    with pytest.raises(UsageError, match="example_inputs"):
        bequest.export(model, 3, tmp_path / "model.onnx")

    class Fails(nn.Module):
        def forward(self, x):
            return torch.linalg.eig(x[0, 0])[0].real

    with pytest.raises(ModelError, match="Fails can't be written as ONNX"):
        bequest.export(Fails(), x, tmp_path / "model.onnx")
    monkeypatch.setattr(module, "_LARGEST", 10)
    with pytest.raises(ModelError, match="at most 2 GB"):
        bequest.export(model, x, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(module.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"onnx.*pip install 'bequest\[onnx\]'"):
        bequest.export(nn.Linear(2, 2), torch.zeros(1, 2), tmp_path / "model.onnx")

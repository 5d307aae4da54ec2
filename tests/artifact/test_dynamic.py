"""ONNX files that take any batch and size: tried at others before they appear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bequest
from bequest.errors import UsageError
from bequest.surgery.program import Program
from tests.graph.test_multihead import Pictures
from tests.networks import Plain, randomise

pytest.importorskip("onnxscript", reason="onnxscript is not installed; bequest[onnx] brings it")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs bequest[onnx]")


class Convolves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.c, self.d = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.b(self.a(x)))
        y = y + torch.relu(self.c(y))
        return {"logits": self.d(y.mean((2, 3))), "map": y}


class HoldsItsBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x))).view(2, 4)


def agree(path, model: nn.Module, *shapes: tuple[int, ...]) -> None:
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    for shape in shapes:
        x = torch.randn(shape)
        with torch.no_grad():
            wanted = torch.utils._pytree.tree_leaves(model.eval()(x))
        for value, tensor in zip(session.run(None, {given.name: x.numpy()}), wanted, strict=True):
            np.testing.assert_allclose(value, tensor.numpy(), atol=1e-5)


def halved(model: nn.Module, shape: tuple[int, ...], groups="all") -> nn.Module:
    model = randomise(model)
    x = torch.zeros(shape)
    return bequest.prune(model, x, 0.5, groups=groups, restorer="none", progress=False).model


def test_any_batch_and_size(tmp_path):
    model, path = halved(Convolves(), (1, 3, 32, 32)), tmp_path / "net.onnx"
    bequest.export(model, torch.zeros(1, 3, 32, 32), path, dynamic=["batch", "size"])
    agree(path, model, (1, 3, 32, 32), (5, 3, 48, 40), (2, 3, 7, 9))
    (given,) = onnxruntime.InferenceSession(path).get_inputs()
    assert given.shape == ["batch", 3, "height", "width"]


def test_a_program_with_named_results(tmp_path):
    class Named(Convolves):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = torch.relu(self.a(x)).reshape(-1, 16, 256)
            return {"logits": self.d(y.mean(2)), "all": y.sum(2)}

    x = torch.zeros(1, 3, 32, 32)
    model = bequest.prune(
        Named(), x, {"a": 0.5}, restorer="none", outputs=["logits"], groups="all", progress=False
    ).model
    assert isinstance(model, Program)
    bequest.export(model, x, tmp_path / "net.onnx", dynamic=["batch"])
    agree(tmp_path / "net.onnx", model, (1, 3, 32, 32), (3, 3, 32, 32))


@pytest.mark.parametrize(
    ("model", "dynamic", "error", "message"),
    [
        (Plain, "batch", UsageError, "expected a list of batch, size; found 'batch'"),
        (Plain, ["length"], UsageError, "expected a list of batch, size"),
        (Plain, None, UsageError, "expected a list of batch, size; found None"),
        (Plain, [["batch"]], UsageError, "expected a list of batch, size"),
        (HoldsItsBatch, ["size"], UsageError, "expected an image"),
        (HoldsItsBatch, ["batch"], UsageError, "does not run on the inputs of shape"),
    ],
)
def test_what_is_refused(tmp_path, model, dynamic, error, message):
    x = torch.zeros(2, 8) if model is HoldsItsBatch else torch.zeros(1, 3, 8, 8)
    with pytest.raises(error, match=message):
        bequest.export(randomise(model()), x, tmp_path / "net.onnx", dynamic=dynamic)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [Plain, Pictures])
def test_pruned_networks_compile_and_export(make):
    """``torch.compile`` (its graph, without a compiler of C++) and ``torch.export``."""
    x = torch.randn(2, 3, 8, 8)
    model = halved(make(), (1, 3, 8, 8) if make is Pictures else (2, 3, 8, 8), "inner").eval()
    with torch.no_grad():
        wanted = torch.utils._pytree.tree_leaves(model(x))
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        exported = torch.export.export(model, (x,)).module()
        for other in (compiled, exported):
            for one, value in zip(torch.utils._pytree.tree_leaves(other(x)), wanted, strict=True):
                torch.testing.assert_close(one, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("restorer", ["lbyl", "regression"])
def test_channels_last_is_kept(restorer):
    model = randomise(Convolves()).to(memory_format=torch.channels_last)
    x = torch.randn(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    pruned = bequest.prune(model, x, 0.5, groups="all", restorer=restorer, progress=False).model
    for one in (pruned.a, pruned.c):
        assert one.weight.is_contiguous(memory_format=torch.channels_last)
        assert not one.weight.is_contiguous()
    assert pruned(x)["map"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("round_to", [16, 32])
def test_widths_are_multiples_or_the_group_stays_and_says_so(round_to):
    model = nn.Sequential(
        *(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 40, 3), nn.ReLU()),
        *(nn.Conv2d(40, 96, 3), nn.ReLU(), nn.Conv2d(96, 4, 3)),
    )
    x = torch.zeros(1, 3, 16, 16)
    pruned = bequest.prune(model, x, 0.4, restorer="none", round_to=round_to, progress=False)
    kept = {one.name: one.kept for one in pruned.plan.groups}
    for one in pruned.report.refused:
        assert f"round_to={round_to}" in one.reason
    assert {"0", "2", "4"} == kept.keys() | {one.group for one in pruned.report.refused}
    assert all(width % round_to == 0 for width in kept.values())

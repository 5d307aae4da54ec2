"""What a user gets wrong: one clear message each, and nothing is touched."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import bequest
from bequest.errors import BequestError, ModelError, UnknownNameError, UsageError
from tests.networks import Plain, randomise

X = torch.randn(1, 3, 8, 8)


def model() -> nn.Module:
    return randomise(Plain())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"criterion": "l3"}, "Did you mean 'l"),
        ({"restorer": "lbly"}, "Did you mean 'lbyl'"),
        ({"criterion": 3}, "expected a name or a config object, found int"),
        ({"restorer": bequest.criteria.L1()}, "restorer: expected a name or a config object"),
        ({"criterion": bequest.criteria.L1}, r"write L1\(\)"),
        ({"groups": "outer"}, "inner, all"),
        ({"scope": "local"}, "group, global"),
        ({"round_to": 0}, "round_to"),
        ({"round_to": 2.5}, "round_to"),
        ({"seed": -1}, "seed: expected a whole number of at least 0"),
        ({"seed": 2**64}, "seed: expected a whole number .* under 2⁶⁴"),
        ({"seed": 0.5}, "seed"),
        ({"ratio": 1.0}, r"\[0, 1\)"),
    ],
)
def test_wrong_arguments(arguments, expected):
    with pytest.raises(UsageError, match=expected) as caught:
        bequest.prune(model(), X, **arguments)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (torch.randn(1, 4, 8, 8), r"does not run on the example inputs of shape \(1, 4, 8, 8\)"),
        (torch.randn(3), "does not run on the example inputs"),
        ("picture.png", "expected a tensor, or a tuple or dict"),
        ({}, "expected a tensor, or a tuple or dict"),
        ({0: X}, r"a dict of the names of forward's arguments, found the keys \[0\]"),
        ((None, [3, {"x": "text"}]), "at least one tensor"),
        ({"z": X}, "does not run on the example inputs"),
        (X.to_sparse(), r"expected dense tensors.*to_dense\(\)"),
        ((X, torch.nested.nested_tensor([X[0], X[0]])), "expected dense tensors"),
    ],
)
def test_wrong_example_inputs(inputs, expected):
    with pytest.raises(UsageError, match=expected):
        bequest.prune(model(), inputs)


def with_nan() -> nn.Module:
    broken = model()
    broken.conv2.weight.data[0, 0, 0, 0] = float("nan")
    return broken


def with_bad_statistics() -> nn.Module:
    broken = model()
    broken.norm1.running_var[0] = float("inf")
    return broken


def with_integers() -> nn.Module:
    broken = model()
    broken.fc.weight = nn.Parameter(torch.ones(5, 24, dtype=torch.int8), requires_grad=False)
    return broken


def with_complex() -> nn.Module:
    broken = model()
    broken.fc.weight = nn.Parameter(torch.ones(5, 24, dtype=torch.complex64))
    return broken


def with_hook() -> nn.Module:
    broken = model()
    broken.conv2.register_forward_hook(lambda module, args, out: out[:, :3])
    return broken


def scripted() -> nn.Module:
    return torch.jit.trace(model(), X)


def compiled() -> nn.Module:
    return torch.compile(model())


def wrapped() -> nn.Module:
    return nn.DataParallel(model())


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(model(), {nn.Linear}, dtype=torch.qint8)


def packed() -> nn.Module:
    broken = model()
    weight = broken.fc.weight.detach()
    broken.fc.weight = nn.Parameter(TwoTensor(weight, weight.clone()))
    return broken


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))


def on_meta() -> nn.Module:
    return model().to("meta")


def with_sparse_weight() -> nn.Module:
    made = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    made[0].weight = nn.Parameter(made[0].weight.detach().to_sparse())
    return made


def with_sparse_buffer() -> nn.Module:
    made = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    made.register_buffer("mask", torch.eye(8).to_sparse_csr())
    return made


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        y = self.conv(x)
        return y * 2 if y.sum().item() > 0 else y


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (with_nan, "'conv2.weight' holds NaN"),
        (with_bad_statistics, "'norm1.running_var' holds NaN or infinite"),
        (with_sparse_weight, r"'0.weight' has the layout torch.sparse_coo; .*to_dense"),
        (with_sparse_buffer, r"'mask' has the layout torch.sparse_csr; .*to_dense"),
        (with_integers, "'fc.weight' has the dtype torch.int8"),
        (with_complex, "'fc.weight' has the dtype torch.complex64"),
        (with_hook, "'conv2' carries a hook"),
        (scripted, "scripted"),
        (compiled, "compiled"),
        (wrapped, "pass model.module"),
        (quantised, "quantised"),
        (packed, "'fc.weight' is packed in a TwoTensor"),
        (lazy, "has no shape yet"),
        (on_meta, "meta device"),
        (DataDependent, r"can't capture DataDependent.*test_wrong_calls.py"),
    ],
)
def test_models_that_are_refused_by_name(broken, expected):
    with pytest.raises(ModelError, match=expected) as caught:
        bequest.prune(broken(), X)
    assert caught.value.exit_code == 1


def test_no_module_at_all():
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module, found dict"):
        bequest.prune({"weight": X}, X)


def test_unknown_names_list_what_is_known():
    with pytest.raises(UnknownNameError, match=r"Known: .*l1.*l2"):
        bequest.prune(model(), X, criterion="zzz")


def test_the_family_of_errors():
    assert issubclass(UsageError, ValueError)
    assert issubclass(ModelError, BequestError)


WIDE = torch.randn(1, 4, 8, 8)
LABELS = torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bequest.cost(model(), WIDE),
        lambda: bequest.latency(model(), WIDE, repeats=1, warmup=0),
        lambda: bequest.evaluate(model(), [(WIDE, LABELS)]),
        lambda: bequest.robustness(model(), [(WIDE.sigmoid(), LABELS)]),
        lambda: bequest.hypersphere.storage(model(), WIDE),
    ],
)
def test_what_measures_says_which_inputs_a_network_does_not_take(call):
    with pytest.raises(UsageError, match=r"Plain does not run on the inputs .*\(1, 4, 8, 8\)"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: bequest.prune(Plain, X),
        lambda: bequest.inspect(Plain, X),
        lambda: bequest.robust.prune(Plain, X),
        lambda: bequest.cost(Plain, X),
        lambda: bequest.latency(Plain, X),
        lambda: bequest.evaluate(Plain, [(X, LABELS)]),
        lambda: bequest.robustness(Plain, [(X, LABELS)]),
        lambda: bequest.export(Plain, X, "net.onnx"),
        lambda: bequest.hypersphere.convert(Plain),
        lambda: bequest.hypersphere.deconvert(Plain),
        lambda: bequest.hypersphere.prune(Plain, 0.5),
        lambda: bequest.hypersphere.recover(Plain),
        lambda: bequest.hypersphere.penalty(Plain, 0.5),
        lambda: bequest.hypersphere.storage(Plain, X),
        lambda: bequest.hypersphere.spectral_report(model(), Plain),
        lambda: bequest.hypersphere.save("folder", Plain),
    ],
)
def test_a_class_is_no_network(call):
    message = r"model: expected a torch.nn.Module, found the class Plain; write Plain\(\.\.\.\)"
    with pytest.raises(UsageError, match=message):
        call()


@pytest.mark.parametrize("measure", [bequest.evaluate, bequest.robustness])
def test_what_gives_no_batches_is_no_loader(measure):
    with pytest.raises(UsageError, match=r"expected a loader of batches.*found NoneType"):
        measure(model(), None)


def test_a_number_is_no_folder(tmp_path):
    pruned = bequest.prune(model(), X, restorer="none")
    for call in (pruned.save, bequest.load_plan, lambda path: bequest.load(path, model())):
        with pytest.raises(UsageError, match="expected the path of a folder, found int"):
            call(3)


@pytest.mark.parametrize("kind", ["generator", "lock"])
@pytest.mark.parametrize(
    "call",
    [
        lambda held: bequest.prune(held, X, restorer="none"),
        lambda held: bequest.inspect(held, X),
        lambda held: bequest.robust.prune(held, X),
        bequest.hypersphere.convert,
        lambda held: bequest.hypersphere.prune(held, 0.5),
    ],
)
def test_what_cannot_be_copied_is_named(call, kind):
    held = model()
    held.norm1.source = threading.Lock() if kind == "lock" else (i for i in range(3))
    with pytest.raises(ModelError, match=rf"can't be copied.*'norm1.source' \({kind}\)"):
        call(held)


@pytest.mark.parametrize(
    "call",
    [
        lambda net, x: bequest.prune(net, X, data=[x]),
        lambda net, x: bequest.robust.certify(net, net, x, eps=0.1),
        lambda net, x: bequest.robust.certified_change(net, net, x),
        bequest.robust.certified_radius,
    ],
)
def test_inputs_that_are_looked_at_have_values(call):
    with pytest.raises(UsageError, match=r"expected inputs with values, found .* meta device"):
        call(model(), X.to("meta"))


def test_where_to_export_is_a_path():
    with pytest.raises(
        UsageError, match=r"expected NAME\.onnx in a folder that exists, found None"
    ):
        bequest.export(model(), X, None)


def test_a_callback_is_a_function():
    with pytest.raises(UsageError, match="callback: expected a function, found str"):
        bequest.robust.prune(model(), X, callback="print")


def test_data_are_dense():
    sparse = torch.randn(9, 3, 8, 8).to_sparse()
    with pytest.raises(UsageError, match=r"data\[0\]: expected dense tensors"):
        bequest.prune(model(), X, data=[sparse])


def test_numbers_of_numpy_are_numbers():
    plain = bequest.prune(model(), X, 0.5, restorer="none", round_to=2, seed=3)
    given = bequest.prune(
        model(), X, np.float32(0.5), restorer="none", round_to=np.int64(2), seed=np.uint8(3)
    )
    assert given.plan.recipe == plain.plan.recipe
    assert type(given.plan.recipe["seed"]) is int

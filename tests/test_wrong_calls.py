"""What a user gets wrong: one clear message each, and nothing is touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

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


def with_weight_norm() -> nn.Module:
    broken = model()
    nn.utils.parametrizations.weight_norm(broken.conv2)
    return broken


def with_pruning_masks() -> nn.Module:
    broken = model()
    prune.l1_unstructured(broken.conv2, "weight", 0.5)
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


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))


def on_meta() -> nn.Module:
    return model().to("meta")


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
        (with_integers, "'fc.weight' has the dtype torch.int8"),
        (with_complex, "'fc.weight' has the dtype torch.complex64"),
        (with_weight_norm, "'conv2' has parametrised weights"),
        (with_pruning_masks, "'conv2' carries a hook"),
        (with_hook, "'conv2' carries a hook"),
        (scripted, "scripted"),
        (compiled, "compiled"),
        (wrapped, "pass model.module"),
        (quantised, "quantised"),
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

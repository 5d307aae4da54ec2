"""Checkpoints as training frameworks write them."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bequest.errors import ArtifactError
from bequest.zoo import load_weights


def small(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def renamed(tensors, prefix):
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def lightning(tensors):
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5",
        "state_dict": renamed(tensors, "model."),
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "hyper_parameters": {"lr": 0.1},
    }


def compiled(model) -> Any:
    return torch.compile(model)


def averaged(model):
    return AveragedModel(model).state_dict()


WRITTEN: dict[str, Any] = {
    "lightning": lambda model: lightning(model.state_dict()),
    "compiled": lambda model: compiled(model).state_dict(),
    "parallel": lambda model: nn.DataParallel(model).state_dict(),
    "compiled parallel": lambda model: compiled(nn.DataParallel(model)).state_dict(),
    "averaged": averaged,
    "averaged in a checkpoint": lambda model: {"ema": averaged(model), "epoch": 1},
    "by step": lambda model: {"model_state_dict": model.state_dict(), "loss": 0.5},
    "nested": lambda model: {"state": {"model": renamed(model.state_dict(), "module.")}},
    "compiled inside": lambda model: renamed(compiled(model).state_dict(), "net."),
    "compiled part": lambda model: {
        name.replace("0.", "0._orig_mod."): value for name, value in model.state_dict().items()
    },
    "four deep": lambda model: renamed(model.state_dict(), "module.ema_model.module._orig_mod."),
    "average beside it": lambda model: (
        renamed(model.state_dict(), "model.") | renamed(averaged(small()), "ema_model.")
    ),
    "average after it": lambda model: {
        "state_dict_ema": small().state_dict(),
        "state_dict": model.state_dict(),
    },
    "average alone": lambda model: renamed(averaged(model), "ema_model."),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_the_networks_own_numbers_are_found(tmp_path, how):
    torch.manual_seed(0)
    dense = small()
    written = WRITTEN[how](dense)
    torch.save(written, tmp_path / "weights.ckpt")
    assert_loads(dense, tmp_path / "weights.ckpt")
    if all(isinstance(value, torch.Tensor) for value in written.values()):
        apart = {name: value.detach().clone() for name, value in written.items()}
        save_file(apart, tmp_path / "weights.safetensors")
        assert_loads(dense, tmp_path / "weights.safetensors")


def assert_loads(dense, path):
    fresh = small()
    load_weights(fresh, path)
    for name, value in dense.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            lambda m: renamed(m, "model.") | {"loss.weight": torch.ones(3)},
            "9 of its 10 names begin with 'model.', of which without it 9 are among the network's "
            "9; without that prefix: loss.weight. .*save_file",
        ),
        (
            lambda m: renamed(dict(list(m.items())[1:]), "model."),
            "8 of its 8 names begin with 'model.', .* 8 are among the network's 9; "
            "missing: 0.weight",
        ),
        (
            lambda m: renamed(m, "student.") | renamed(m, "teacher."),
            "9 of its 18 names begin with 'student.'.*without that prefix: teacher.0.weight",
        ),
        (
            lambda m: m | {"n_averaged": torch.ones(2)},
            "unexpected: n_averaged",
        ),
    ],
)
def test_what_fits_in_part_is_refused_with_its_counts(tmp_path, given, message):
    fresh, path = small(), tmp_path / "w.ckpt"
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    torch.save(given(small().state_dict()), path)
    with pytest.raises(ArtifactError, match=message):
        load_weights(fresh, path)
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize("keys", [["state_dict"], ["state_dict", "model"]])
def test_a_checkpoint_that_holds_itself_is_refused(tmp_path, keys):
    checkpoint = {}
    inner = checkpoint
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
    inner[keys[-1]] = checkpoint
    torch.save(checkpoint, tmp_path / "w.pt")
    with pytest.raises(ArtifactError, match=f"found '{keys[-1]}' that holds itself"):
        load_weights(small(), tmp_path / "w.pt")


def test_a_prefix_that_the_network_has_stays(tmp_path):
    dense = nn.ModuleDict({"model": nn.ModuleDict({"model": nn.Linear(3, 2)})})
    torch.save(dense.state_dict(), tmp_path / "w.pt")
    fresh = nn.ModuleDict({"model": nn.ModuleDict({"model": nn.Linear(3, 2)})})
    load_weights(fresh, tmp_path / "w.pt")
    assert torch.equal(fresh["model"]["model"].weight, dense["model"]["model"].weight)


def test_a_step_of_the_network_is_no_counter(tmp_path):
    def scaled():
        model = nn.Linear(3, 2)
        model.step = nn.Parameter(torch.randn(1))
        return model

    dense, fresh = scaled(), scaled()
    torch.save(renamed(dense.state_dict(), "model."), tmp_path / "w.ckpt")
    load_weights(fresh, tmp_path / "w.ckpt")
    assert torch.equal(fresh.step, dense.step)

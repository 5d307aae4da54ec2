from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bequest.artifact import load, load_plan, parse_plan, save
from bequest.artifact.fingerprint import stored_tensors
from tests.artifact.networks import CASES, GroupedTail, OddBuffers, TiedEmbedding


@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_those_of_the_saved_model_to_the_bit(saved, training):
    saved.model.train(training)
    model = load(saved.folder, saved.case.make().train(training))
    assert type(model) is type(saved.model)
    assert torch.equal(model(saved.case.inputs), saved.model(saved.case.inputs))


def test_every_tensor_and_attribute_comes_back(saved):
    model = load(saved.folder, saved.case.make())
    expected, found = saved.model.state_dict(), model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for change in saved.case.surgery.attributes:
        assert getattr(model.get_submodule(change.module), change.name) == change.after


def test_the_fresh_model_is_not_changed(saved):
    fresh = saved.case.make()
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    model = load(saved.folder, fresh)
    after = fresh.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not {id(t) for t in model.parameters()} & {id(t) for t in fresh.parameters()}


def test_the_plan_comes_back_as_it_was(saved):
    assert load_plan(saved.folder) == saved.plan
    assert parse_plan(json.loads(json.dumps(saved.plan.to_json()))) == saved.plan


def test_ties_are_kept_and_stored_once(tmp_path):
    case = CASES["TiedEmbedding"]
    pruned, plan = case.pruned(case.make())
    save(tmp_path / "out", pruned, plan)
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert sorted(held) == ["embed.weight", "head.bias", "norm.bias", "norm.weight"]
    model = load(tmp_path / "out", TiedEmbedding())
    assert model.head.weight is model.embed.weight
    assert model.same_norm is model.norm


def test_a_buffer_without_state_is_cut_and_not_stored(tmp_path):
    case = CASES["OddBuffers"]
    pruned, plan = case.pruned(case.make())
    save(tmp_path / "out", pruned, plan)
    assert "gain" not in load_file(tmp_path / "out" / "model.safetensors")
    model = load(tmp_path / "out", OddBuffers())
    assert torch.equal(model.gain, torch.linspace(1, 2, 8)[[1, 2, 6]])
    assert "gain" not in model.state_dict()


def test_modes_and_requires_grad_are_those_of_the_fresh_model(grouped):
    fresh = GroupedTail().eval()
    fresh.norm.train()
    fresh.first.requires_grad_(False)
    fresh.grouped.weight.requires_grad_(False)
    model = load(grouped.folder, fresh)
    assert (model.training, model.norm.training, model.first.training) == (False, True, False)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {"first.weight", "first.bias", "grouped.weight", "grouped.bias"}


def test_the_loaded_model_trains(grouped):
    model = load(grouped.folder, GroupedTail())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    model(grouped.case.inputs).square().sum().backward()
    optimiser.step()
    for name, value in model.named_parameters():
        assert value.grad is not None
        assert not torch.equal(before[name], value), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_converted_after_pruning(tmp_path, dtype):
    case = CASES["GroupedTail"]
    pruned, plan = case.pruned(case.make())
    pruned.to(dtype).eval()
    save(tmp_path / "out", pruned, plan)
    model = load(tmp_path / "out", GroupedTail().to(dtype).eval())
    inputs = case.inputs.to(dtype)
    assert model.first.weight.dtype == dtype
    assert torch.equal(model(inputs), pruned(inputs))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_fresh_model_on_another_device(saved):
    model = load(saved.folder, saved.case.make().cuda())
    held = stored_tensors(model)
    assert all(tensor.is_cuda for tensor in held.values())
    for name, tensor in stored_tensors(saved.model).items():
        assert torch.equal(held[name].cpu(), tensor)


def test_channels_last_weights(tmp_path):
    case = CASES["GroupedTail"]
    pruned, plan = case.pruned(case.make())
    _channels_last(pruned.eval())
    save(tmp_path / "out", pruned, plan)
    model = load(tmp_path / "out", GroupedTail().eval())
    _channels_last(model)
    assert torch.equal(model(case.inputs), pruned(case.inputs))


def test_an_empty_plan_is_a_plain_checkpoint(tmp_path):
    case = CASES["GroupedTail"]
    model, plan = type(case)(case.make, type(case.surgery)((), (), ()), case.inputs).pruned(
        GroupedTail()
    )
    save(tmp_path / "out", model, plan)
    again = load(tmp_path / "out", GroupedTail())
    assert torch.equal(again(case.inputs), model(case.inputs))


def test_a_new_folder_has_both_files_and_the_usual_permissions(grouped):
    assert _held(grouped.folder) == ["model.safetensors", "plan.json"]
    assert _held(grouped.folder.parent) == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    for path in grouped.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE(grouped.folder.stat().st_mode) == 0o777 & ~umask


def test_an_empty_folder_is_kept_and_filled(tmp_path, monkeypatch):
    case = CASES["GroupedTail"]
    pruned, plan = case.pruned(case.make())
    node = tmp_path.stat().st_ino
    monkeypatch.chdir(tmp_path)
    save(".", pruned, plan)
    assert _held(tmp_path) == ["model.safetensors", "plan.json"]
    assert tmp_path.stat().st_ino == node
    assert torch.equal(load(".", GroupedTail())(case.inputs), pruned(case.inputs))


def test_missing_parents_are_made(tmp_path):
    case = CASES["GroupedTail"]
    pruned, plan = case.pruned(case.make())
    save(tmp_path / "a" / "b", pruned, plan)
    assert isinstance(load(str(tmp_path / "a" / "b"), GroupedTail()), nn.Module)


def _held(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _channels_last(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

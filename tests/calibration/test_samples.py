"""Inputs that one call made up serve others, also from a file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bequest
from bequest.calibration.samples import Samples
from bequest.errors import DataError, UsageError
from bequest.restorers import Regression
from tests.networks import Plain, randomise

QUICK = Regression(images=64, inversion=2)


def test_inputs_can_be_saved_and_reused(tmp_path):
    model, x = randomise(Plain()), torch.zeros(1, 3, 8, 8)
    samples = QUICK.samples(model, x, None, 0)
    samples.save(tmp_path / "inputs.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["inputs.safetensors"]
    read = Samples.load(tmp_path / "inputs.safetensors")
    assert read.real is False
    states = [
        bequest.prune(model, x, 0.5, restorer=QUICK, data=data, round_to=1).model.state_dict()
        for data in (None, samples, read)
    ]
    for name, tensor in states[0].items():
        assert all(torch.equal(tensor, other[name]) for other in states[1:])


def test_inputs_of_an_earlier_call_are_taken_without_running_the_network():
    x = torch.zeros(1, 3, 8, 8)
    samples = QUICK.samples(randomise(Plain()), x, None, 0)
    taken = Regression().samples(nn.Module(), x, samples, 0)  # which has no forward
    assert taken.count == 64
    assert torch.equal(taken.chunks[0][0], samples.chunks[0][0])


def test_inputs_of_another_network_are_refused():
    samples = QUICK.samples(randomise(Plain()), torch.zeros(1, 3, 8, 8), None, 0)
    with pytest.raises(UsageError, match=r"expected inputs of the shapes \[\(3, 9, 9\)\]"):
        bequest.prune(randomise(Plain()), torch.zeros(1, 3, 9, 9), restorer=QUICK, data=samples)


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_files_that_hold_something_else_are_refused(tmp_path, content):
    path = tmp_path / "inputs.safetensors"
    if content is None:
        save_file({"0": torch.zeros(3, 2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"expected inputs that Samples\.save wrote"):
        Samples.load(path)
    with pytest.raises(DataError, match="nowhere"):
        Samples.load(tmp_path / "nowhere")


def test_a_folder_that_is_not_there_is_said(tmp_path):
    samples = QUICK.samples(randomise(Plain()), torch.zeros(1, 3, 8, 8), None, 0)
    with pytest.raises(DataError, match="could not be written"):
        samples.save(tmp_path / "nowhere" / "inputs.safetensors")

"""Tensors in the precision of a walk."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bequest.calibration.tensors import KEPT, Tensors
from bequest.errors import ModelError


def test_tensors_of_the_precision_are_the_models_own():
    model = nn.BatchNorm1d(3)
    tensors = Tensors(model, torch.float32)
    assert tensors["weight"] is model.weight
    assert tensors["num_batches_tracked"] is model.num_batches_tracked
    assert set(tensors) == set(model.state_dict())
    assert len(tensors) == 5


def test_others_are_converted_when_read_and_few_are_kept():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4))).to(torch.bfloat16)
    tensors = Tensors(model, torch.float32)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensors[name], tensor.float())
    assert len(tensors._converted) == KEPT


def test_what_is_written_is_rounded_and_read_back():
    model = nn.Linear(3, 2).to(torch.float16)
    tensors = Tensors(model, torch.float32)
    assert tensors["bias"].dtype == torch.float32
    tensors.write("bias", torch.tensor([1 / 3, -2.0], dtype=torch.float64), "a test")
    assert model.bias.dtype == torch.float16
    assert torch.equal(tensors["bias"], torch.tensor([1 / 3, -2.0]).half().float())
    with pytest.raises(ModelError, match=r"'bias' to fit into float16, .* after a test"):
        tensors.write("bias", torch.tensor([1e6, 0.0]), "a test")

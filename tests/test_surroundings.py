"""What a caller has switched on around a call changes nothing of what comes out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import bequest
from bequest.execution import modes
from bequest.execution.modes import in_plain_mode
from bequest.restorers import Regression
from tests.networks import Plain, randomise

X = torch.zeros(1, 3, 8, 8)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDINGS = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu"),
    "another default device": lambda: default_device("meta"),
    "double by default": lambda: default_dtype(torch.float64),
    "half by default": lambda: default_dtype(torch.float16),
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.parametrize(
    "arguments",
    [
        {"restorer": Regression(images=16, inversion=1)},
        {"restorer": "lbyl", "criterion": "random"},
        {"criterion": "obs", "target": "macs:0.6", "restorer": Regression(images=16)},
    ],
    ids=["regression", "weights alone", "target"],
)
def test_the_same_bits_come_out_anywhere(surroundings, arguments):
    model = randomise(Plain())
    here = bequest.prune(model, X, round_to=1, progress=False, **arguments)
    with surroundings():
        there = bequest.prune(model, X, round_to=1, progress=False, **arguments)
    assert there.plan.groups == here.plan.groups
    expected = here.model.state_dict()
    for name, tensor in there.model.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert not any(tensor.is_inference() for tensor in there.model.state_dict().values())
    there.model(torch.randn(2, 3, 8, 8)).sum().backward()  # it can be trained


def test_a_model_that_was_made_in_inference_mode():
    with torch.inference_mode():
        model = randomise(Plain())
        pruned = bequest.prune(model, X, restorer=Regression(images=16), progress=False)
    assert not any(tensor.is_inference() for tensor in pruned.model.state_dict().values())


def test_modes_are_left_and_entered_again():
    @in_plain_mode
    def inside():
        """What is on."""
        return torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    assert inside.__doc__ == "What is on."
    with torch.inference_mode(), torch.autocast("cpu"):
        assert inside() == (False, False)
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")


def test_products_on_a_gpu_are_not_rounded_to_ten_bits(monkeypatch):
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [backend.fp32_precision for backend in backends]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    seen = []

    @in_plain_mode
    def look(depth):
        seen.append([backend.fp32_precision for backend in backends])
        if depth:
            look(depth - 1)
            seen.append([backend.fp32_precision for backend in backends])

    try:
        backends[0].fp32_precision = "tf32"
        look(1)
        assert seen == [["ieee", "ieee"]] * 3
        assert [backend.fp32_precision for backend in backends] == ["tf32", before[1]]
        assert modes._Held.inside == 0
    finally:
        backends[0].fp32_precision = before[0]


def test_deterministic_algorithms_are_wished_for_and_not_enforced_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    look = in_plain_mode(torch.get_deterministic_debug_mode)
    try:
        for mode, inside in ((0, 0), (1, 1), (2, 1)):
            torch.set_deterministic_debug_mode(mode)
            assert look() == inside
            assert torch.get_deterministic_debug_mode() == mode
    finally:
        torch.set_deterministic_debug_mode(0)


def test_a_network_whose_code_makes_tensors_in_its_own_way_is_left_to_it():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 16), nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x + torch.ones(4))))

    model = Own().double().eval()
    with default_dtype(torch.float64):
        pruned = bequest.prune(
            model, torch.zeros(1, 4), restorer=Regression(images=16), round_to=1, progress=False
        )
        assert pruned.model(torch.zeros(1, 4)).dtype == torch.float64


def test_the_first_call_of_a_process_leaves_the_global_generator():
    code = """
import random, torch, bequest
from torch import nn
before = random.getstate()
model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
bequest.prune(model, torch.zeros(1, 4), restorer="none")
assert random.getstate() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)  # what is imported here stays

"""Tensors in mapped files leave memory and come back as they were."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bequest.execution.paging import LARGE, let_go, let_go_behind

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="advice to Linux")


def resident() -> int:
    """Bytes of files that the process has in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("RssFile:")[1].split()[0])


def mapped(folder: Path, number: int = 8 * LARGE) -> torch.Tensor:
    save_file({"w": torch.arange(number, dtype=torch.float32)}, folder / "one.safetensors")
    return load_file(folder / "one.safetensors")["w"]


def test_what_lies_in_a_file_leaves_memory_and_is_read_again(tmp_path):
    tensor = mapped(tmp_path)
    total = tensor.double().sum()
    before = resident()
    let_go(tensor)
    assert resident() < before - tensor.nbytes // 2
    assert tensor.double().sum() == total


def test_what_was_written_over_a_file_stays(tmp_path):
    tensor = mapped(tmp_path)
    tensor[::3] = -1.0
    wanted = tensor.clone()
    let_go(tensor)
    assert torch.equal(tensor, wanted)


def test_others_are_left_alone():
    ours, small = torch.randn(2 * LARGE), torch.randn(3)
    wanted = ours.clone(), small.clone()
    let_go(ours, small, ours[5:], torch.empty(LARGE, device="meta"), torch.empty(0))
    assert torch.equal(ours, wanted[0])
    assert torch.equal(small, wanted[1])


def test_modules_let_their_tensors_go_when_they_have_run(tmp_path):
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(4)))
    x = torch.randn(2, 1024)
    wanted = model(x)
    save_file(model.state_dict(), tmp_path / "all.safetensors")
    for name, tensor in load_file(tmp_path / "all.safetensors").items():
        model.get_parameter(name).data = tensor
    before = resident()
    assert torch.equal(let_go_behind(model)(x), wanted)
    assert resident() < before + sum(p.nbytes for p in model.parameters()) // 2

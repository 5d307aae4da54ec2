"""A command line that runs in this process, a small network in a file, and a few images."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from bequest.cli import main
from bequest.execution.threads import threads_of_torch

NETWORK = """
from pathlib import Path

import torch
from torch import nn

Path(__file__).with_name("was-run").touch()
print("the file prints")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 12, 3, padding=1)
        self.head = nn.Linear(12, 6)

    def forward(self, x):
        print("the model prints")
        x = self.second(self.first(x).relu()).relu()
        return self.head(x.mean((2, 3)))


def make():
    torch.manual_seed(3)
    return Net()


def no_module():
    return 3


def fails():
    return undefined
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _one_thread():
    with threads_of_torch(1):
        yield


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs ``bequest`` with these words; gives the exit code and both outputs."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["bequest", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Outcome(0 if code is None else int(code), out, err)

    return call


@pytest.fixture
def net(tmp_path):
    """A file with a network; running it leaves ``was-run`` beside it."""
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return path


@pytest.fixture
def images(tmp_path):
    """Sixty random images of six classes."""
    generator = np.random.default_rng(0)
    path = tmp_path / "images.npz"
    x = generator.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.savez(path, x=x, y=np.arange(60) % 6)
    return path


@pytest.fixture
def form():
    """The options that say what the network reads."""
    return ("--size", "3x8x8", "--mean", "0.5", "--std", "0.25")

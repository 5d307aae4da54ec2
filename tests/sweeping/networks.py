"""Small networks that other processes can import, and images to measure them on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from bequest.criteria.base import Criterion
from bequest.sweeping import Images, Network


class Small(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 10, 3, padding=1)
        self.head = nn.Linear(10, 6)

    def forward(self, x):
        x = self.second(self.norm(self.first(x)).relu()).relu()
        return self.head(x.mean((2, 3)))


def small(name="small", width=12, seed=0, **others):
    """A network of the sweep, with 40 images in two batches."""
    torch.manual_seed(seed)
    model = Small(width).eval()
    images = torch.randn(40, 3, 6, 6)
    labels = model(images).argmax(1)
    batches = [(images[:20], labels[:20]), (images[20:], labels[20:])]
    return Network(name, model, torch.zeros(1, 3, 6, 6), Images(batches, "noise"), **others)


class Fails(Criterion):
    """Refuses units of 12 channels."""

    def _scores(self, unit, seed):
        if unit.size == 12:
            raise ValueError("twelve is too many")
        return torch.arange(unit.size).double()


class Counted(Criterion):
    """Leaves a mark in a folder whenever it scores; kills its process at the first mark."""

    def __init__(self, folder, kills=False):
        self.folder, self.kills = str(folder), kills

    def _scores(self, unit, seed):
        marks = Path(self.folder)
        (marks / f"{len([*marks.iterdir()])}-{os.getpid()}").touch()
        if self.kills and len([*marks.iterdir()]) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.arange(unit.size).double()


class Slow(Criterion):
    """Takes its time, without working."""

    def _scores(self, unit, seed):
        time.sleep(0.1)
        return torch.rand(unit.size, generator=torch.Generator().manual_seed(seed)).double()


CELLS = {
    "ratios": (0.25, 0.5, 0.75),
    "criteria": (Slow(),),
    "restorers": ("none", "lbyl"),
    "seeds": (1,),
    "round_to": 1,
    "progress": False,
}
"""12 cells of two networks."""


def numbers(sweep):
    """What must be the same wherever a sweep runs."""
    return [
        (one.model, c.criterion, c.restorer, c.seed, c.ratio, c.accuracy, c.cost, c.groups)
        for one in sweep.comparisons
        for c in one.cells
    ]

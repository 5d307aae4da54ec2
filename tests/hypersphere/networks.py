"""Layers of every kind and small networks of float64."""

from __future__ import annotations

import torch
from torch import nn

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (4, 6)),
    "linear-3d-input": (lambda: nn.Linear(6, 5, bias=False), (2, 3, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), (2, 4, 7, 7)),
    "conv2d-reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 6)),
    "conv2d-same": (lambda: nn.Conv2d(4, 6, 3, padding="same", dilation=2), (2, 4, 7, 7)),
    "conv2d-grouped": (lambda: nn.Conv2d(8, 6, 3, groups=2), (2, 8, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(5, 5, 3, padding=1, groups=5), (2, 5, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2), (1, 2, 3, 4, 3)),
}


def layer_and_input(name):
    make, shape = LAYERS[name]
    layer = make().double()
    return layer, torch.randn(shape, dtype=torch.float64)


class Net(nn.Module):
    """Convolutions, batch norm, a shortcut and a classifier."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = (x + self.second(x)).relu()
        return self.head(x.mean((2, 3)))

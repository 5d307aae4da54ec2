"""What the examples are tried on; the command line finds these networks as FILE.py:FACTORY."""

import torch
from torch import nn


def twins():
    """Channels 4 to 7 of the first convolution are those of 0 to 3 again."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 4))
    for tensor in model[0].parameters():
        tensor.data[4:] = tensor.data[:4]
    return model.eval()


class Turned(nn.Module):
    """What one convolution writes is turned by a right angle before the next reads it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        return self.last(self.first(x).relu().rot90(1, (2, 3)))


def turned():
    torch.manual_seed(0)
    return Turned().eval()

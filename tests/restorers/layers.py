"""Layers of every geometry, with the shapes of inputs that they take."""

from __future__ import annotations

from torch import nn

CASES = [
    (nn.Linear(7, 5), (4, 7)),
    (nn.Linear(7, 5), (4, 3, 7)),
    (nn.Conv1d(6, 4, 3, padding=1, stride=2), (2, 6, 9)),
    (nn.Conv2d(6, 4, 3, padding=1), (2, 6, 7, 8)),
    (nn.Conv2d(6, 4, (3, 2), padding="same", dilation=(2, 1)), (2, 6, 7, 8)),
    (nn.Conv2d(6, 4, 3, padding=2, stride=(2, 1), groups=2), (2, 6, 7, 8)),
    (nn.Conv2d(6, 12, 3, groups=6, bias=False), (2, 6, 7, 8)),
    (nn.Conv3d(3, 4, 2), (2, 3, 4, 4, 4)),
    (nn.ConvTranspose1d(6, 4, 3), (2, 6, 9)),
    (nn.ConvTranspose2d(6, 4, 2, stride=2), (2, 6, 4, 5)),
    (nn.ConvTranspose2d(6, 4, (3, 4), stride=(2, 3), padding=1, groups=2), (2, 6, 4, 5)),
    (nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=4), (2, 4, 4, 5)),
    (nn.ConvTranspose2d(3, 4, 3, stride=2, dilation=(2, 1), bias=False), (2, 3, 4, 5)),
    (
        nn.ConvTranspose3d(3, 4, (2, 1, 3), stride=(1, 2, 2), output_padding=(0, 1, 0)),
        (2, 3, 3, 2, 3),
    ),
]


class Applied(nn.Module):
    """A layer whose weight is applied by a call of one's own: ``call(x, layer.weight)``."""

    def __init__(self, layer, call):
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x):
        return self.call(x, self.layer.weight)

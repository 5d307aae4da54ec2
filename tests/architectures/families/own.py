"""Networks that need PyTorch alone: a detector, recurrent ones, weights that are computed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.architectures.detector import Detector
from tests.architectures.subject import Subject, noise, tokens


class Tagger(nn.Module):
    """A label for each word: embedding, two bidirectional LSTM layers, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(200, 64)
        self.memory = nn.LSTM(64, 64, 2, batch_first=True, bidirectional=True)
        self.labels = nn.Linear(128, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.labels(self.memory(self.words(x))[0])


class Keywords(nn.Module):
    """A word from a spectrogram: a convolution over time, a GRU, its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.sound = nn.Conv1d(40, 64, 5, 2, 2)
        self.norm = nn.BatchNorm1d(64)
        self.memory = nn.GRU(64, 128, 2, batch_first=True)
        self.words = nn.Linear(128, 12)

    def forward(self, x: Tensor) -> Tensor:
        heard = torch.relu(self.norm(self.sound(x))).transpose(1, 2)
        return self.words(self.memory(heard)[0][:, -1])


class WaveNet(nn.Module):
    """Dilated convolutions with weight norm and gates, each with a residue and a skip."""

    def __init__(self, width: int = 32, layers: int = 4) -> None:
        super().__init__()
        normed = nn.utils.parametrizations.weight_norm
        self.enter = normed(nn.Conv1d(1, width, 1))
        self.gates = nn.ModuleList(
            normed(nn.Conv1d(width, 2 * width, 3, padding=2**i, dilation=2**i))
            for i in range(layers)
        )
        self.residues = nn.ModuleList(normed(nn.Conv1d(width, width, 1)) for _ in range(layers))
        self.skips = nn.ModuleList(normed(nn.Conv1d(width, 64, 1)) for _ in range(layers))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(64, 64, 1), nn.ReLU(), nn.Conv1d(64, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        told = []
        for gate, residue, skip in zip(self.gates, self.residues, self.skips, strict=True):
            left, right = gate(x).chunk(2, 1)
            inner = left.tanh() * right.sigmoid()
            told.append(skip(inner))
            x = x + residue(inner)
        return self.out(torch.stack(told).sum(0))


class Translator(nn.Module):
    """``nn.Transformer``: the decoder reads what the encoder says."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(200, 64)
        self.blocks = nn.Transformer(64, 4, 2, 2, 128, batch_first=True)
        self.out = nn.Linear(64, 200)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.words(x), self.words(x[:, :6])))


class AlexNet(nn.Module):
    """Two convolutions with local response norm, as in 2012, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 48, 5, 2, 2),
            nn.ReLU(),
            nn.LocalResponseNorm(5),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(48, 64, 5, padding=2, groups=2),
            nn.ReLU(),
            nn.LocalResponseNorm(5),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 96, 3, padding=1),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(96 * 49, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


NETWORKS: dict[str, Callable[[], Subject]] = {
    "yolo11-like": lambda: Subject(Detector, noise(2, 3, 128, 128)),
    "lstm_tagger": lambda: Subject(Tagger, tokens(200, 2, 12)),
    "gru_keywords": lambda: Subject(Keywords, noise(2, 40, 24)),
    "wavenet": lambda: Subject(WaveNet, noise(2, 1, 64)),
    "nn.Transformer": lambda: Subject(Translator, tokens(200, 2, 12), shares_streams=True),
    "alexnet": lambda: Subject(AlexNet, noise(2, 3, 64, 64)),
}

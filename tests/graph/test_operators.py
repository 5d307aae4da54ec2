"""Operators around which channels leave: what is left computes what the dense network does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.graph.masking import assert_reloaded_and_found, plainly
from tests.networks import randomise
from tests.random_networks.oracle import masked

Between = Callable[[Tensor], Tensor]


class Maps(nn.Module):
    """conv → operator → conv."""

    def __init__(self, between: Between, read: int = 16) -> None:
        super().__init__()
        self.first, self.between = nn.Conv2d(3, 16, 3, padding=1), between
        self.second, self.last = nn.Conv2d(read, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.second(self.between(F.relu(self.first(x))))))


class Rows(nn.Module):
    """linear → operator → linear; a second layer writes what the operator may read beside it."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor], read: int = 16) -> None:
        super().__init__()
        self.first, self.other, self.between = nn.Linear(6, 16), nn.Linear(6, 16), between
        self.second, self.last = nn.Linear(read, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(self.between(self.first(x), self.other(x)))))


class Bilinear(Rows):
    """Reads two layers and writes a third set of channels."""

    def __init__(self) -> None:
        super().__init__(torch.add, 12)
        self.product = nn.Bilinear(16, 16, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.product(self.first(x), self.other(x))
        return self.last(torch.tanh(self.second(x)))


class Codebook(Rows):
    """Rows are replaced by the nearest of a table."""

    def __init__(self) -> None:
        super().__init__(torch.add)
        self.table = nn.Parameter(torch.randn(10, 16))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x), self.other(x)
        x = self.table[torch.cdist(a, self.table).argmin(-1)] + b
        return self.last(torch.tanh(self.second(x)))


def sampled(x: Tensor) -> Tensor:
    turn = torch.tensor([[[0.6, 0.8, 0], [-0.8, 0.6, 0.1]]]).to(x).expand(len(x), 2, 3)
    return F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False))


def unpooled(x: Tensor) -> Tensor:
    return F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)


def over_columns(x: Tensor) -> Tensor:
    columns = F.unfold(x, 3, padding=1)
    return F.fold(columns * columns.sigmoid(), x.shape[2:], 3, padding=1)


def overwritten(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :6] = y[:, :6] * 2
    y[:, :, 0] = 0.5
    return y


def every_second(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, ::2] = x[:, 1::2].tanh()
    return y


def complex_product(x: Tensor) -> Tensor:
    numbers = torch.view_as_complex(torch.stack([x, x.square()], -1).contiguous())
    return torch.view_as_real(numbers * numbers).sum(-1)


MAPS: dict[str, tuple[Between, int]] = {
    "pixel_shuffle": (nn.PixelShuffle(2), 4),
    "channel_shuffle": (nn.ChannelShuffle(2), 16),
    "pixel_unshuffle": (nn.PixelUnshuffle(2), 64),
    "im2col": (lambda x: F.unfold(x, 2, stride=2).view(len(x), -1, 3, 3), 64),
    "im2col and back": (over_columns, 16),
    "grid_sampler": (sampled, 16),
    "repeat, channels": (lambda x: x.repeat(1, 2, 1, 1), 32),
    "repeat, space and a new dimension": (lambda x: x.repeat(2, 1, 1, 2, 2).sum(0), 16),
    "tile": (lambda x: torch.tile(x, (1, 2)), 16),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), 32),
    "repeat to as many channels": (
        lambda x: x * torch.linspace(0, 1, 6).to(x).repeat(len(x), 16, 6, 1),
        16,
    ),
    "fft": (lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 1.5, s=x.shape[-2:]), 16),
    "fft, real part": (lambda x: torch.fft.fft(x, dim=-1).real + x, 16),
    "complex numbers": (complex_product, 16),
    "max_unpool": (unpooled, 16),
    "unfold": (lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)), 16),
    "slice_scatter": (overwritten, 16),
    "every second channel": (lambda x: x[:, ::2] * x[:, 1::2].sigmoid(), 8),
    "every third, of no multiple of three": (lambda x: x[:, 1::3], 5),
    "every second one written": (every_second, 16),
    "roll over channels": (lambda x: torch.cat([x[:, :4].roll(1, 3), x[:, 4:]], 1).roll(5, 1), 16),
    "flip": (lambda x: x + x.flip(1), 16),
    "triangle": (lambda x: x.tril() + x.triu(1) * 2, 16),
    "zeros of the channels' number": (lambda x: x + torch.zeros(len(x), 16, 6, 6).to(x), 16),
    "ones beside it": (lambda x: torch.cat([x, x.new_ones(len(x), 2, 6, 6)], 1), 18),
    "under other names": (
        lambda x: torch.multiply(torch.subtract(x, 0.5).absolute(), 2).clip(0, 1).negative(),
        16,
    ),
    "unequal parts": (lambda x: torch.cat([one * 2 for one in x.split(7, 1)][::-1], 1), 16),
}


def messages(a: Tensor, b: Tensor) -> Tensor:
    index = torch.tensor([1, 2, 3, 4, 0])
    there = index[:, None].expand_as(a)
    return torch.zeros_like(a).scatter_add(0, there, a) + b.gather(0, there)


def placed(a: Tensor, b: Tensor) -> Tensor:
    y = a.clone()
    y[torch.tensor([1, 3])] = b[:2]
    return y


ROWS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "scatter_add, gather": (messages, 16),
    "index_put": (placed, 16),
    "cdist": (torch.cdist, 5),
    "cosine_similarity": (lambda a, b: F.cosine_similarity(a[:, None], b[None], dim=-1) @ a, 16),
    "logaddexp": (torch.logaddexp, 16),
    "meshgrid beside it": (
        lambda a, b: a * sum(torch.meshgrid(torch.arange(5.0), torch.ones(1), indexing="ij")) + b,
        16,
    ),
}

NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    **{
        name: lambda case=case: (Maps(*case), torch.randn(2, 3, 6, 6))
        for name, case in MAPS.items()
    },
    **{name: lambda case=case: (Rows(*case), torch.randn(5, 6)) for name, case in ROWS.items()},
    "bilinear": lambda: (Bilinear(), torch.randn(5, 6)),
    "codebook": lambda: (Codebook(), torch.randn(5, 6)),
}


def drawn(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    return randomise(model).double().eval(), x.double()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_channels_leave_around_the_operator(name, tmp_path):
    model, x = drawn(name)
    pruned = plainly(model, x)
    dense = masked(model, pruned.plan.surgery)
    assert any(cut.tensor == "first.weight" for cut in pruned.plan.surgery.cuts)
    torch.testing.assert_close(pruned.model(x), dense(x), rtol=1e-9, atol=1e-9)
    assert_reloaded_and_found(pruned, dense, drawn(name)[0], x, tmp_path / "out")


@torch.no_grad()
def test_a_rest_that_is_taken_from_leaves_as_a_whole():
    torch.manual_seed(0)
    model, x = Maps(lambda x: x[:, 1::6], 3).eval(), torch.randn(2, 3, 6, 6)
    model.first.weight[13] = 0  # taken: without it 14 would be
    model.first.weight[6:12] = 0
    pruned = plainly(model, x)
    keep = next(cut.keep for cut in pruned.plan.surgery.cuts if cut.tensor == "first.weight")
    assert len({i in keep for i in range(12, 16)}) == 1
    torch.testing.assert_close(pruned.model(x), masked(model, pruned.plan.surgery)(x))

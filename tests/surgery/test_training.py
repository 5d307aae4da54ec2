"""Tensors that training alone reads leave with the channels they meet there, or are named."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest


class Stream(nn.Module):
    """A residual stream that something happens to in training."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 32)
        self.up = nn.Linear(32, 24)
        self.down = nn.Linear(24, 32)
        self.out = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        if self.training:
            x = self.in_training(x)
        return self.out(x + self.down(F.relu(self.up(x))))

    def in_training(self, x: Tensor) -> Tensor:
        return x


class Masked(Stream):
    """The embedding of a mask stands for steps that are drawn by lot."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.arange(32.0))

    def in_training(self, x: Tensor) -> Tensor:
        return torch.where(torch.rand((*x.shape[:-1], 1)) < 0.5, self.mask, x)


class Auxiliary(Stream):
    """A head of training's own, which reads the halves of the stream the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.ModuleDict({"head": nn.Sequential(nn.Linear(32, 5), nn.BatchNorm1d(5))})

    def in_training(self, x: Tensor) -> Tensor:
        first, last = x.chunk(2, -1)
        return x * self.aux["head"](torch.cat([last, first], -1)).exp().mean()


class Noisy(Stream):
    """Noise of a width that stands in the code."""

    def in_training(self, x: Tensor) -> Tensor:
        return x + torch.randn(len(x), 32)


class Idle(Stream):
    """A parameter that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(32))


class Labelled(Idle):
    """Training needs labels, which nobody gave."""

    def in_training(self, x: Tensor) -> Tensor:
        raise ValueError("no labels")


class Lots(Stream):
    """Lots of every kind, and positions that no shape tells."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.zeros(32))

    def in_training(self, x: Tensor) -> Tensor:
        drawn = torch.from_numpy(np.random.rand(len(x)) < random.random())  # noqa: NPY002
        x = x + torch.rand(1)
        if drawn.any():
            x[drawn] = self.mask
        return x


def pruned(network, x, ratio=0.5):
    return bequest.prune(network, x, ratio, groups="all", restorer="none", progress=False)


X = torch.randn(4, 8)


@pytest.mark.parametrize("network", [Stream, Idle])
def test_nothing_is_said_where_training_runs(network):
    result = pruned(network(), X)
    result.model.train()(X)
    assert result.report.notes == ()


def test_the_embedding_of_a_mask_leaves_with_its_channels(tmp_path):
    result = pruned(Masked(), X)
    result.model.train()(X)
    removed = next(one.removed for one in result.plan.groups if one.name == "inner")
    kept = [channel for channel in range(32) if channel not in removed]
    assert result.model.mask.tolist() == kept
    assert result.report.notes == ("'mask': read in training alone, cut like what it meets there",)
    result.save(tmp_path / "out")
    assert torch.equal(bequest.load(tmp_path / "out", Masked()).mask, result.model.mask)


def test_an_auxiliary_head_reads_the_channels_that_stay():
    """Dead channels leave, and training computes what it did."""
    torch.manual_seed(0)
    model = Auxiliary()
    dead = torch.arange(0, 32, 2)
    with torch.no_grad():
        for layer in (model.inner, model.down):
            layer.weight[dead] = 0
            layer.bias[dead] = 0
    result = pruned(model, X, {"inner": 0.5})
    head = result.model.aux["head"][0]
    assert (head.weight.shape, head.in_features) == ((5, 16), 16)
    assert "cut like what it meets" in result.report.notes[0]
    torch.testing.assert_close(result.model.train()(X), model.train()(X))


def test_a_head_that_would_read_other_channels_is_remarked():
    """More of one half leave than of the other, and a chunk counts in equal halves."""
    model = Auxiliary()
    with torch.no_grad():
        for layer in (model.inner, model.down):
            layer.weight[:12] = 0
    notes = pruned(model, X).report.notes
    assert "in training mode: getitem has the shape (4, 8), planned (4, 4)" in notes[-1]


def test_a_tied_weight_is_read_under_one_of_its_names():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.one = nn.Linear(8, 32), nn.Linear(32, 32)
            self.two = nn.Linear(32, 32)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(x)
            return self.one(x) + self.two(F.relu(x))

    result = pruned(Tied(), X, {"inner": 0.5})
    assert result.report.notes == ()
    assert result.model.two.weight.shape == (32, 16)


def test_a_width_in_the_code_of_training_is_remarked():
    result = pruned(Noisy(), X)
    assert result.plan.form == "module"
    result.model.eval()(X)
    with pytest.raises(RuntimeError, match="must match"):
        result.model.train()(X)
    (note,) = result.report.notes
    assert note.startswith("the network is fit for evaluation alone; in training mode: ")


def test_a_tensor_of_training_that_can_not_be_run_is_named():
    (note,) = pruned(Labelled(), X).report.notes
    assert note.startswith("'idle': read in training alone or never, and as wide as before")


def test_training_that_no_trace_shows_is_run_and_leaves_the_generators_alone():
    model, x = Lots(), torch.randn(64, 8)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]  # noqa: NPY002
    notes = pruned(model, x).report.notes
    assert "'mask': read in training alone or never" in notes[0]
    assert "in training mode: " in notes[1]
    assert model.training
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]  # noqa: NPY002
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]


def test_batch_norms_that_want_several_samples():
    class Normed(Noisy):
        def in_training(self, x: Tensor) -> Tensor:
            return F.batch_norm(super().in_training(x), None, None, training=True)

    (note,) = pruned(Normed(), X[:1]).report.notes
    assert "fit for evaluation alone; in training mode: " in note


def test_progressive_pruning_says_it_too():
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.one(x))
            return self.two(x + torch.randn(16) if self.training else x)

    notes = bequest.robust.prune(Hidden(), X, step=0.5).report.notes
    assert "fit for evaluation alone" in notes[-1]

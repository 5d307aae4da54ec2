"""A weight that several operators apply: one change for all of them, or none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import bequest


class Twice(nn.Module):
    """A layer that reads what it has written."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.last = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x):
        return self.last(F.relu(self.again(F.relu(self.again(F.relu(self.first(x)))))))


class Siamese(nn.Module):
    """Two inputs through the same two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, x):
        left, right = x.chunk(2, dim=1)
        left = self.second(F.relu(self.first(left)))
        return self.last(F.relu(left) - F.relu(self.second(F.relu(self.first(right + 1)))))


class Strided(nn.Module):
    """One kernel applied with several strides and dilations, by calls of the network's own."""

    def __init__(self):
        super().__init__()
        self.first, self.kernel = nn.Conv2d(3, 16, 3), nn.Parameter(torch.randn(8, 16, 3, 3) / 12)
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        fine = F.conv2d(x, self.kernel, stride=2).mean((2, 3))
        return self.last(torch.cat([fine, F.conv2d(x, self.kernel, dilation=2).amax((2, 3))], 1))


class Learnt(nn.Module):
    """Two layers of a vector that is no input, without a batch, and of rows."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(16, 3)
        self.vector = nn.Parameter(torch.randn(8))

    def forward(self, x):
        rows, vector = (self.second(F.relu(self.first(each))) for each in (x, self.vector))
        return self.last(F.relu(rows)), self.last(F.relu(vector))


def pruned_by(model, x, restorer, layer="first"):
    torch.manual_seed(0)
    return bequest.prune(
        model, x[:1], {layer: 0.5}, restorer=restorer, round_to=1,
        data=[x] if restorer == "regression" else None, progress=False,
    )  # fmt: skip


def error_of(pruned, model, x):
    with torch.no_grad():
        dense = model(x)
        return float((pruned.model(x) - dense).norm() / (dense - dense.mean(0)).norm())


@pytest.mark.parametrize(
    ("network", "shape"), [(Twice, (8,)), (Siamese, (16,)), (Strided, (3, 9, 9))]
)
def test_it_is_never_worse_than_nothing(network, shape):
    torch.manual_seed(0)
    model, x, fresh = network().eval(), torch.randn(400, *shape), torch.randn(400, *shape)
    plain, restored = (pruned_by(model, x, name) for name in ("none", "regression"))
    assert error_of(restored, model, fresh) < 0.8 * error_of(plain, model, fresh)


def test_a_layer_that_reads_what_it_has_written_is_left_as_it_is():
    torch.manual_seed(0)
    model, x = Twice().eval(), torch.randn(400, 8)
    pruned = pruned_by(model, x, "regression")
    kept = [i for i in range(32) if i not in pruned.plan.groups[0].removed]
    assert torch.equal(pruned.model.again.weight, model.again.weight[kept][:, kept])
    assert any("shared by 2 calls" in note for one in pruned.plan.groups for note in one.notes)


@pytest.mark.parametrize(("network", "shape"), [(Siamese, (16,)), (Strided, (3, 9, 9))])
def test_calls_that_do_not_read_each_other_are_fitted_together(network, shape):
    torch.manual_seed(0)
    model, x = network().eval(), torch.randn(400, *shape)
    pruned = pruned_by(model, x, "regression")
    (group,) = pruned.plan.groups
    assert not any("left as it is" in note for note in group.notes)
    assert group.reconstruction_error < 0.8 * group.unrestored_error


def test_a_vector_without_a_batch_is_fitted_and_measured_too():
    torch.manual_seed(0)
    model, x = Learnt().eval(), torch.randn(400, 8)
    pruned = pruned_by(model, x, "regression")
    (group,) = pruned.plan.groups
    assert group.reconstruction_error < 0.8 * group.unrestored_error
    assert pruned.model(x)[1].shape == (3,)

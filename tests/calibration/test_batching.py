"""How many samples a network takes at once, and which of its inputs count them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bequest
from bequest.calibration.inputs.batching import Batching
from bequest.calibration.inputs.synthetic import synthesise
from bequest.errors import UsageError
from bequest.restorers import Regression

X = torch.zeros(1, 3, 8, 8)


class Called(nn.Module):
    """A convolution, and a head on what a function makes of its maps and of further inputs."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.head, self.function = nn.Conv2d(3, 16, 3), nn.Linear(16, 4), function

    def forward(self, image, *others):
        return self.function(self, self.conv(image).relu(), *others)


def pooled(m, h):
    return m.head(h.mean((2, 3)))


@pytest.mark.parametrize(
    ("example", "size", "whole"),
    [
        (X, 1, set()),
        ((torch.zeros(4, 3, 8, 8), torch.zeros(4, 5), torch.tensor(3)), 4, {2}),
        ((torch.zeros(7, 5), X), 1, {0}),
        ({"a": torch.zeros(2, 6), "b": torch.zeros(6, 6), "c": [torch.zeros(2)]}, 2, {1}),
    ],
)
def test_the_example_tells(example, size, whole):
    assert Batching.of(example) == Batching(size, frozenset(whole))


@pytest.mark.parametrize("example", [torch.tensor(3.0), torch.zeros(0, 3)])
def test_no_samples_are_refused(example):
    with pytest.raises(UsageError, match="first dimension counts samples"):
        Batching.of(example)


WRITTEN = {
    "view(1, -1)": (lambda m, h: m.head(h.mean((2, 3)).view(1, -1)), 1),
    "view(2, 16)": (lambda m, h: m.head(h.mean((2, 3)).view(2, 16)), 2),
    "all folded into one": (
        lambda m, h: m.head(h.permute(1, 0, 2, 3).reshape(1, 16, -1).mean(2)),
        1,
    ),
}


@pytest.mark.parametrize(("function", "size"), WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("data", [None, [torch.randn(21, 3, 8, 8)]], ids=["made up", "given"])
def test_a_network_with_its_batch_size_in_the_code_gets_that(function, size, data):
    model, example = Called(function).eval(), torch.zeros(size, 3, 8, 8)
    seen = Regression(images=20, inversion=1).samples(model, example, data, 0)
    assert seen.chunk_size == size
    assert seen.count == 20
    pruned = bequest.prune(model, example, 0.5, data=seen, round_to=1, progress=False)
    assert pruned.plan.groups[0].kept == 8
    assert pruned.model(torch.randn(size, 3, 8, 8)).isfinite().all()


def test_others_are_run_with_more():
    model = Called(pooled).eval()
    assert Batching.of(X).samples_at_once(model, X, 64) == 64


def test_a_single_sample_is_told_from_a_batch():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    with pytest.raises(UsageError, match=r"a single one of the shape \(3, 8, 8\); give x\[None\]"):
        bequest.prune(model, X[0], 0.5, progress=False)


def test_single_numbers_are_those_of_the_example_and_tables_are_made_up_whole():
    model = Called(lambda m, h, t, table: m.head(h.mean((2, 3)) * t + table.mean()))
    made = synthesise(model, (X, torch.tensor(0.5), torch.zeros(7, 5)), 65, "leaves", None, seed=0)
    assert made.whole == {1, 2}
    assert made.count == 68  # 17 chunks of 4
    assert all(float(t) == 0.5 and table.shape == (7, 5) for _, t, table in made.chunks)
    assert made.chunks[0][2].std() > 0.5


def test_samples_that_others_point_at_stay_as_many():
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = (
                nn.Linear(6, 16),
                nn.Linear(16, 16),
                nn.Linear(16, 3),
            )

        def forward(self, nodes, edges):
            x = torch.relu(self.first(nodes))
            met = torch.zeros_like(x).index_add_(0, edges[1], x[edges[0]])
            return self.head(torch.relu(self.second(x + met)))

    model = Graph().eval()
    inputs = torch.zeros(10, 6), torch.randint(10, (2, 30))
    assert Batching.of(inputs).samples_at_once(model, inputs, 4) == 10
    assert Batching.of(inputs).samples_at_once(model, inputs, 32) == 32
    pruned = bequest.prune(model, inputs, 0.5, restorer=Regression(images=4), progress=False)
    assert pruned.model.second.out_features == 8


def test_inputs_of_one_number_per_sample_are_made_up():
    model = Called(lambda m, h, t: m.head(h.mean((2, 3)) + t[:, None]))
    made = synthesise(model, (X, torch.zeros(1)), 64, "leaves", None, seed=0)
    assert made.count == 64
    assert torch.cat([numbers for _, numbers in made.chunks]).std() > 0.5


def test_the_example_may_lie_anywhere_and_hold_anything():
    model = nn.Sequential(nn.ReLU(inplace=True), Called(pooled)).eval()
    wild = torch.full((1, 1, 1, 1), torch.nan).expand(1, 3, 8, 8)
    examples = [X, wild, X.to("meta"), (X + 1).requires_grad_(), (X + 1).transpose(2, 3)]
    before = [example.clone() for example in examples]
    kept = [
        bequest.prune(model, example, 0.5, restorer=Regression(images=16), progress=False)
        for example in examples
    ]
    for pruned in kept[1:]:
        assert torch.equal(pruned.model[1].head.weight, kept[0].model[1].head.weight)
    for example, value in zip(examples, before, strict=True):
        assert example.is_meta or torch.equal(example.nan_to_num(), value.nan_to_num())

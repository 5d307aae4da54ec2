"""The user's own inputs: all of them are used, or a message says what is wrong and what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from torch import nn

import bequest
from bequest.calibration import samples
from bequest.calibration.inputs.given import collect
from bequest.calibration.samples import Samples, dividing
from bequest.errors import UsageError
from bequest.restorers import Regression

X = torch.zeros(1, 3, 8, 8)


def images(count, *shape):
    return torch.randn(count, *(shape or (3, 8, 8)), generator=torch.Generator().manual_seed(0))


def small():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    ).eval()


class Nested(nn.Module):
    """An image, and a pair of vectors, one of them in a dict."""

    def __init__(self):
        super().__init__()
        self.conv, self.left, self.right = nn.Conv2d(3, 16, 3), nn.Linear(5, 16), nn.Linear(5, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, image, pair, scale=1.0):
        x = F.relu(self.conv(image)).mean((2, 3))
        x = x + F.relu(self.left(pair[0])) + F.relu(self.right(pair[1]["right"]))
        return self.head(x * scale)


@pytest.mark.parametrize("count", [1, 3, 64, 65, 100, 127, 131, 257])
def test_every_input_is_used(count):
    given = images(count)
    made = collect(small(), [given[: count // 3], given[count // 3 :]], X, 4096)
    assert made.count == count
    seen = torch.cat([chunk[0] for chunk in made.chunks])
    assert torch.equal(seen[:count], given)
    assert torch.equal(seen[count:], given[: made.repeated])
    assert len({len(chunk[0]) for chunk in made.chunks}) == 1
    assert any("count twice" in note for note in made.notes) == bool(made.repeated)


def test_chunks_divide_the_inputs_or_lack_few():
    assert [dividing(count) for count in (1, 64, 65, 96, 127, 4096)] == [1, 4, 5, 8, 8, 64]
    for count in range(1, 600):
        size = dividing(count)
        assert size <= 2 * samples.CHUNK
        assert -count % size <= max(1, 0.025 * count)


def test_fewer_are_taken_than_the_first_batch_has():
    made = collect(small(), [images(256)], X, 50)
    assert made.count == 50
    assert made.repeated == 0


def test_repeated_inputs_and_notes_survive_a_file(tmp_path):
    made = collect(small(), [images(131)], X, 4096)
    made.save(tmp_path / "inputs")
    read = Samples.load(tmp_path / "inputs")
    assert (read.count, read.repeated, read.notes) == (131, made.repeated, made.notes)


def test_the_plan_says_how_many_were_used():
    pruned = bequest.prune(small(), X, 0.5, data=[images(50)], round_to=1, progress=False)
    assert pruned.plan.recipe["inputs"] == {"real": True, "count": 50, "notes": []}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([(255 * images(4)).byte()], r"found whole numbers \(torch.uint8\); convert.*float\(\)"),
        ([images(4, 8, 8, 3)], r"channels last: use x.permute\(0, 3, 1, 2\)"),
        ([images(4)[0]], r"a single input: give batches"),
        ([images(4, 1, 8, 8)], r"expected inputs of shape \(3, 8, 8\)"),
        ([np.zeros((4, 3, 8, 8), np.float32)], "found ndarray; use torch.from_numpy"),
        ([{"x": images(4)}], r"found a mapping with \['x'\]; give example_inputs as a dict"),
        ("abc", "unknown source of inputs 'abc'. Known: .*synthetic"),
        (5, "an iterable of batches, such as a DataLoader.*found int"),
        ([], "expected batches of inputs, found none"),
        ([torch.full((4, 3, 8, 8), torch.inf)], "finite"),
        ([images(1).repeat(9, 1, 1, 1)], "inputs that differ, found 9 that are all the same"),
        ([torch.zeros(1, 3, 8, 8)], "the same number"),
        ([torch.zeros(4, 3, 8, 8, dtype=torch.complex64)], "found complex"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_cure(data, expected):
    with pytest.raises(UsageError, match=expected):
        bequest.prune(small(), X, 0.5, data=data, progress=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_real_numbers_of_any_precision_are_taken(dtype):
    made = collect(small(), [images(4).to(dtype)], X, 64)
    assert made.chunks[0][0].dtype == torch.float32


def test_single_precision_inputs_serve_a_double_network():
    seen = Regression(images=64, inversion=0).samples(small(), X, None, 0)
    pruned = bequest.prune(small().double(), X.double(), 0.5, data=seen, round_to=1, progress=False)
    assert pruned.model[0].weight.dtype == torch.float64


def test_labels_behind_the_inputs_and_a_bare_tensor():
    labelled = [(images(20), torch.arange(20)), [images(7), torch.arange(7)]]
    assert collect(small(), labelled, X, 64).count == 27
    assert collect(small(), images(27), X, 64).count == 27


NESTED = (X, (torch.zeros(1, 5), {"right": torch.zeros(1, 5)}), 2.0)


def test_nested_inputs_are_found_by_their_place():
    pair = (images(30, 5), {"other": None, "right": images(30, 5) + 1})
    made = collect(Nested().eval(), [(images(30), pair, torch.arange(30))], NESTED, 64)
    expected = (images(30), pair[0], pair[1]["right"])
    found = map(torch.cat, zip(*made.chunks, strict=True))
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("arguments", [{}, {"target": "agreement:0.3"}, {"restorer": "lbyl"}])
@pytest.mark.parametrize("named", [False, True])
def test_networks_with_nested_inputs_are_pruned(arguments, named):
    example = {"scale": 2.0, "pair": NESTED[1], "image": X} if named else NESTED
    model = Nested().eval()
    pruned = bequest.prune(model, example, groups="all", round_to=1, progress=False, **arguments)
    assert pruned.model.conv.out_channels < 16
    assert not any("compared" in note for note in pruned.report.notes)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ({"image": images(9)}, r"data: expected 'pair'.*found \['image'\]"),
        ({"image": images(9), "pair": images(9)}, r"data\['pair'\]: expected 2 input tensors"),
        (
            {"image": images(9), "pair": (images(9, 5), {"left": images(9, 5)})},
            r"data\['pair'\]: expected 2 input|expected 'right'",
        ),
        (
            {"image": images(9), "pair": (images(9, 5), {"right": images(8, 5)})},
            r"as many samples of each input, found \[8, 9\]",
        ),
    ],
)
def test_what_lacks_in_a_batch_is_named(batch, expected):
    example = {"image": X, "pair": NESTED[1]}
    with pytest.raises(UsageError, match=expected):
        collect(Nested().eval(), [batch], example, 64)


class Looking(nn.Module):
    """Images beside a table that all of them share."""

    def __init__(self):
        super().__init__()
        self.conv, self.key, self.head = nn.Conv2d(3, 16, 3), nn.Linear(5, 16), nn.Linear(16, 4)

    def forward(self, image, table):
        shared = F.relu(self.key(table)).mean(0)
        return self.head(F.relu(self.conv(image)).mean((2, 3)) + shared)


def test_an_input_that_all_samples_share_is_whole_in_every_chunk():
    example, table = (X, torch.zeros(7, 5)), images(7, 5)
    batches = [(images(50), table), (images(48), table)]
    made = collect(Looking().eval(), batches, example, 4096)
    assert made.whole == {1}
    assert made.count == 98
    assert all(torch.equal(chunk[1], table) for chunk in made.chunks)
    with pytest.raises(UsageError, match="must be the same in every batch"):
        collect(Looking().eval(), [*batches, (images(4), table + 1)], example, 4096)


def test_tokens_outside_of_their_table():
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 4)).eval()
    tokens = torch.zeros(1, 5, dtype=torch.int64)
    outside = torch.arange(30).view(6, 5)
    for data in ([outside], collect(model, [outside], tokens, 64)):
        with pytest.raises(UsageError, match=r"expected tokens under 10.*found 29"):
            bequest.prune(model, tokens, 0.5, data=data)
    made = collect(model, [torch.arange(10, dtype=torch.int32).view(2, 5)], tokens, 64)
    assert made.count == 2
    with pytest.raises(UsageError, match=r"whole numbers.*x.long\(\)"):
        collect(model, [images(2, 5)], tokens, 64)

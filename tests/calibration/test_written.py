"""Tokens that a network writes itself: which networks can, what they write, and what it costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest.calibration.inputs import Synthetic, Written, written
from bequest.calibration.inputs.author import Author, CannotWriteError
from bequest.calibration.samples import Samples
from bequest.errors import UsageError
from bequest.execution.copies import private_copy
from bequest.restorers import Regression
from tests.language.networks import causal

V, WIDTH = 11, 24
X = torch.zeros(1, 16, dtype=torch.int64)


class Counting(nn.Module):
    """Foretells that t is followed by t + 1, all but surely; further tokens by what they are."""

    def __init__(self, start: int | None = None, sure: float = 50.0):
        super().__init__()
        self.config = SimpleNamespace(bos_token_id=None, decoder_start_token_id=start)
        self.words = nn.Embedding(V, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 32, bias=False), nn.Linear(32, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, V, bias=False)
        with torch.no_grad():
            self.words.weight.copy_(torch.eye(V, WIDTH))
            self.head.weight.copy_(sure * torch.eye(V, WIDTH).roll(1, 0))
            self.down.weight.mul_(0.01)

    def hidden(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        return x + self.down(F.relu(self.up(x)))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.hidden(tokens))


class Recalling(Counting):
    """Foretells by the token before the last, which a cache has to hold."""

    def forward(self, input_ids=None, past_key_values=None, use_cache=False):
        x = self.hidden(input_ids)
        before = torch.zeros_like(x[:, :1]) if past_key_values is None else past_key_values
        seen = torch.cat([before, x], 1)
        logits = self.head(seen[:, :-1])
        kept = self.kept(seen) if use_cache else None
        return SimpleNamespace(logits=logits, past_key_values=kept) if use_cache else logits

    def kept(self, seen: Tensor) -> Tensor:
        return seen[:, -1:]


class Forgetful(Recalling):
    """Whose cache is wrong."""

    def kept(self, seen: Tensor) -> Tensor:
        return seen[:, :1]


class Probable(Counting):
    """Behind a softmax."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).softmax(-1)


class Framed(Counting):
    """Whose code holds the number of samples and their length."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.view(4, 16))


class Placed(Counting):
    """With positions learnt up to the example's length."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(16, WIDTH)
        nn.init.zeros_(self.places.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.places(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.hidden(tokens) + x)


class Masked(Counting):
    def forward(self, tokens, mask):
        return self.head(self.hidden(tokens) * mask[..., None])


def rows_of(made: Samples) -> Tensor:
    return torch.cat([chunk[0] for chunk in made.chunks])


def counts_on(rows: Tensor, step: int = 1) -> bool:
    return bool(((rows[:, step:] - rows[:, :-step]) % V == 1).all())


@pytest.mark.parametrize(
    ("network", "example", "length"),
    [
        (Counting, X, 32),
        (Counting, X[:, :2], 32),
        (Probable, X, 32),
        (Placed, X, 16),
        (Framed, X.repeat(4, 1), 16),
        (Recalling, {"input_ids": X}, 128),
        (Recalling, X, 128),
        (Forgetful, X, 32),
    ],
)
def test_what_is_written_is_what_the_network_foretells(network, example, length):
    made = Written(rows=32, length=64).make(network().eval(), example, seed=0)
    assert made.written
    assert not made.real
    assert made.notes[0].startswith(f"inputs: {32 * 64 // length} texts of {length} tokens")
    texts = rows_of(made).view(-1, length)
    assert texts.shape == (32 * 64 // length, length)
    assert counts_on(texts, 2 if issubclass(network, Recalling) else 1)
    assert set(texts[:, 0].tolist()) == set(range(V))


def test_masks_are_ones():
    inputs = {"tokens": X, "mask": torch.zeros(1, 16, dtype=torch.bool)}
    made = Written(rows=8, length=16).make(Masked().eval(), inputs, seed=0)
    assert counts_on(rows_of(made))
    assert all(chunk[1].all() and chunk[1].dtype == torch.bool for chunk in made.chunks)


def test_every_second_row_begins_with_the_start_token():
    for start, expected in ((7, 7), (None, None), (V, None)):
        texts = rows_of(Written(16, 16).make(Counting(start).eval(), X, seed=0))
        firsts = set(texts[::2, 0].tolist())
        assert firsts == {expected} if expected else len(firsts) > 1
        assert len(set(texts[1::2, 0].tolist())) > 1


def test_rows_are_laid_out_at_the_length_of_the_example():
    made = Written(rows=10, length=8).make(Counting().eval(), X[:, :12], seed=0)
    texts = rows_of(made)
    assert texts.shape == (7, 12)
    assert counts_on(texts.flatten()[:80].view(10, 8))


def test_seeds_and_temperature():
    model = Counting(sure=4.0).eval()
    first, again, other = (rows_of(Written(8, 16).make(model, X, seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    cold = rows_of(Written(8, 16, temperature=0.05).make(model, X, 3))
    assert counts_on(cold)
    assert not counts_on(first)


class Backwards(Counting):
    """An encoder: later tokens tell of earlier ones."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.hidden(tokens)
        return self.head(x + 0.01 * x.mean(1, keepdim=True))


class Bodiless(Counting):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.hidden(tokens)


class Classifying(Counting):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).mean(1)


class Segments(Counting):
    def forward(self, tokens, segments):
        return super().forward(tokens) + self.head(self.words(segments))


class Overflowing(Counting):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) * torch.inf


REFUSED = [
    (Backwards, X, "Backwards can't write its own: its outputs depend on tokens that come later"),
    (Bodiless, X, r"it doesn't return \(batch, length, 11\), its tokens"),
    (Classifying, X, r"it doesn't return \(batch, length, vocabulary\)"),
    (Segments, (X, X), "expected one input of tokens, found 2"),
    (Overflowing, X, "its outputs are not finite"),
    (Counting, X[:, :1], r"\(batch, length\), length ≥ 2, found \(1, 1\)"),
    (Counting, X[0], r"\(batch, length\), length ≥ 2, found \(16,\)"),
]


@pytest.mark.parametrize(("network", "example", "reason"), REFUSED)
def test_who_cannot_write_is_refused_by_the_reason(network, example, reason):
    with pytest.raises(UsageError, match=rf"{reason}.* or random ones with data='synthetic'"):
        bequest.prune(network().eval(), example, {"up": 0.5}, data="written", progress=False)


def test_images_cannot_be_written():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    with pytest.raises(CannotWriteError, match="it doesn't read one batch of tokens"):
        Written().make(model, torch.zeros(1, 3, 8, 8), seed=0)


def test_a_network_that_can_write_does_so_where_nobody_names_a_source():
    model = Counting(sure=3.0).eval()

    def pruned(data=None, **fields):
        restorer = Regression(refine=0, **fields)
        return bequest.prune(
            model, X, {"up": 0.5}, criterion="obs", restorer=restorer, data=data, round_to=1
        )

    unasked, named, uniform = pruned(), pruned("written"), pruned("synthetic")
    assert torch.equal(unasked.model.down.weight, named.model.down.weight)
    assert unasked.report.notes == (
        "inputs: 512 texts of 32 tokens, which the network has written itself",
    )
    assert named.plan.recipe["inputs"]["source"]["name"] == "written"
    ridges = [one.plan.groups[0].ridge for one in (unasked, uniform)]
    assert ridges[1] == pytest.approx(100 * ridges[0])
    few = pruned(images=64)
    assert few.plan.recipe["inputs"]["count"] == 64
    assert few.report.notes[0].startswith("inputs: 32 texts of 32 tokens")


def test_of_uniform_tokens_the_report_says_why_and_what_would_be_better():
    pruned = bequest.prune(Backwards().eval(), X, {"up": 0.5}, round_to=1, progress=False)
    assert pruned.report.notes == (
        "inputs: tokens are drawn uniformly, as Backwards can't write its own: its outputs depend "
        "on tokens that come later; real ones (data=) do better",
    )


def test_writing_has_a_bounded_cost(monkeypatch):
    model = Recalling().eval()
    macs = Author.of(model, X).macs
    source = Written(rows=64, length=64)
    for effort, length in ((4096, 256), (2048, 128), (512, 32), (1, 8)):
        monkeypatch.setattr(written, "EFFORT", effort * macs)
        made = source.make(model, X, seed=0)
        assert made.notes[0].startswith(f"inputs: 16 texts of {length} tokens")
        assert ("4,096 tokens would take it more than" in made.notes[0]) == (effort < 4096)
        assert rows_of(made).numel() == 16 * length


class Marked(Recalling):
    """Notes that it ran."""

    ran = False

    def forward(self, input_ids=None, past_key_values=None, use_cache=False):
        self.ran = True
        return super().forward(input_ids, past_key_values, use_cache)


def test_they_are_written_on_a_copy():
    model = Marked().train()
    state = torch.get_rng_state()
    Written(4, 16).make(model, X, seed=0)
    assert model.training
    assert not model.ran
    assert torch.equal(torch.get_rng_state(), state)


def test_files_of_inputs_say_that_they_were_written(tmp_path):
    for source in (Written(8, 16), Synthetic(images=8)):
        made = source.make(Counting().eval(), X, seed=0)
        made.save(tmp_path / "inputs.safetensors")
        loaded = Samples.load(tmp_path / "inputs.safetensors")
        assert loaded.written == made.written
        assert loaded.tokens_alone == made.tokens_alone


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rows": 0}, "rows ≥ 1, found 0"),
        ({"rows": 2.0}, "rows ≥ 1, found 2.0"),
        ({"length": 1}, "length ≥ 2, found 1"),
        ({"length": True}, "length ≥ 2, found True"),
        ({"temperature": 0}, "temperature > 0, found 0"),
        ({"temperature": float("inf")}, "temperature > 0, found inf"),
        ({"temperature": "hot"}, "temperature ≥ 0, found 'hot'"),
    ],
)
def test_wrong_fields(fields, expected):
    with pytest.raises(UsageError, match=expected):
        Written(**fields)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "mistral", "gemma3", "bloom"])
def test_a_cache_changes_nothing(name):
    model = causal(name, max_position_embeddings=24)
    author = Author.of(private_copy(model), {"input_ids": X})
    assert author.argument == "input_ids"
    assert author.start == 1
    assert author.bears(24)
    texts = author.write(6, 24, 1e-3, seed=0)
    with torch.no_grad():
        foretold = model(input_ids=texts, use_cache=False).logits[:, :-1].argmax(-1)
    assert (foretold == texts[:, 1:]).double().mean() > 0.95

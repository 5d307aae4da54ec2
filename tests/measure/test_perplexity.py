"""Perplexity of language models: windows and strides, and what can't be measured."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest.errors import ModelError, UsageError

WORDS = 13


class Average(nn.Module):
    """Foretells from the mean of all tokens so far: each window begins anew."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        counts = torch.arange(1, x.shape[1] + 1)[:, None]
        return self.head(x.cumsum(1) / counts)


def text(length=101):
    return torch.randint(WORDS, (length,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("window", "stride"), [(10, None), (10, 10), (10, 4), (10, 1), (2, None), (101, None)]
)
def test_each_token_counts_once_and_as_a_naive_loop_says(window, stride):
    model, tokens = Average(), text()
    losses, seen, hits = [], set(), 0
    with torch.no_grad():
        for start in range(0, len(tokens) - window + 1, stride or window):
            part = tokens[start : start + window]
            logits = model(part[None])[0]
            for place in range(1, window):
                if start + place not in seen:
                    seen.add(start + place)
                    wanted = part[place]
                    losses.append(float(F.cross_entropy(logits[place - 1], wanted)))
                    hits += int(logits[place - 1].argmax() == wanted)
    found = bequest.perplexity(model, tokens, window=window, stride=stride)
    assert found.tokens == len(losses)
    assert found.windows == (101 - window) // (stride or window) + 1
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.top1 == pytest.approx(100 * hits / len(losses))
    assert found.tokens_per_second > 0


def test_batches_change_nothing(monkeypatch):
    model, tokens = Average().train(), text()
    whole = bequest.perplexity(model, tokens, window=10, stride=3)
    home = importlib.import_module("bequest.measure.perplexity")
    monkeypatch.setattr(home, "LOGITS", 2 * 10 * WORDS)
    parted = bequest.perplexity(model, tokens, window=10, stride=3)
    assert parted.tokens == whole.tokens
    assert parted.loss == pytest.approx(whole.loss)
    assert model.training


class Encoder(Average):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.words(tokens).mean(1, keepdim=True) + self.words(tokens))


class Classifier(Average):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.words(tokens).mean(1))


@pytest.mark.parametrize(
    ("network", "tokens", "numbers", "error", "message"),
    [
        (Average, text(9), {"window": 10}, UsageError, "at least one window, 10 tokens, found 9"),
        (Average, text() + 1, {"window": 10}, UsageError, "tokens from 0 to 12, .* found 13"),
        (Average, text() - 1, {"window": 10}, UsageError, "tokens from 0 to 12, .* found -1"),
        (Average, text(), {"window": 1}, UsageError, "window of at least 2 tokens"),
        (Average, text(), {"window": 10, "stride": 11}, UsageError, "window 10 and stride 11"),
        (Average, text(), {"window": 10, "stride": 0}, UsageError, "window 10 and stride 0"),
        (Average, text()[None], {}, UsageError, r"int64 \(n,\), found torch.int64 \(1, 101\)"),
        (Average, text().float(), {}, UsageError, r"found torch.float32 \(101,\)"),
        (Average, "words", {}, UsageError, r"int64 \(n,\), found str"),
        (Average, text().tolist(), {}, UsageError, r"int64 \(n,\), found list$"),
        (Average, text() > 3, {}, UsageError, r"found torch.bool \(101,\)"),
        (Average, text(), {"window": 10.0}, UsageError, r"found window 10\.0 and stride 10\.0"),
        (Average, text(), {"window": "10"}, UsageError, "found window '10' and stride '10'"),
        (Average, text(), {"window": 10, "stride": 5.0}, UsageError, r"and stride 5\.0"),
        (str, text(), {}, UsageError, "expected a torch.nn.Module, found str"),
        (Encoder, text(), {"window": 10}, ModelError, "Encoder sees the tokens that it is asked"),
        (Classifier, text(), {"window": 10}, ModelError, r"found \(1, 13\); a language model"),
    ],
)
def test_what_cannot_be_measured_is_refused(network, tokens, numbers, error, message):
    with pytest.raises(error, match=message):
        bequest.perplexity(network(), tokens, **numbers)


def test_outputs_that_are_not_finite_have_no_perplexity():
    network = Average()
    network.head.bias.data.fill_(math.nan)
    found = bequest.perplexity(network, text(), window=10)
    assert math.isnan(found.loss)
    assert math.isnan(found.perplexity)

"""A network of the user's own file that reads tokens."""

from __future__ import annotations

import pytest

TAGGER = """
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.cell = nn.Embedding(11, 6), nn.LSTM(6, 8, batch_first=True)
        self.last = nn.Linear(8, 2)

    def forward(self, tokens):
        return self.last(self.cell(self.table(tokens))[0])

def make():
    torch.manual_seed(0)
    return Tagger()
"""


def test_it_is_pruned_and_what_it_costs_is_measured(run, tmp_path):
    (tmp_path / "tagger.py").write_text(TAGGER)
    word, out = f"{tmp_path / 'tagger.py'}:make", tmp_path / "out"
    words = ("--size", "5/11", "--restorer", "lbyl", "--round-to", 1, "-o", out)
    pruned = run("prune", word, *words)
    assert pruned.code == 0, pruned.err
    assert f"--model {word} --latency" in pruned.err + pruned.out
    found = run("evaluate", out, "--model", word, "--latency", "--json")
    assert found.code == 0, found.err
    assert found.json["accuracy"] is None
    assert found.json["cost"]["params"] < 300
    nothing = run("evaluate", out, "--model", word, "--latency", "--attack", "fgsm")
    assert nothing.code == 2


@pytest.mark.parametrize("size", ["5/", "5/0", "x/11", "5/11/2"])
def test_wrong_sizes_of_tokens_are_refused(run, tmp_path, size):
    (tmp_path / "tagger.py").write_text(TAGGER)
    result = run("inspect", f"{tmp_path / 'tagger.py'}:make", "--size", size)
    assert result.code == 2
    assert "expected LENGTH/VOCABULARY for tokens" in result.err

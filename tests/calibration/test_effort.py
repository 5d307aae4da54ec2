"""One word for how much is done."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bequest
from bequest.calibration.inputs import Synthetic, base, synthetic
from bequest.errors import UsageError
from bequest.restorers import Regression


@pytest.fixture
def counted(monkeypatch):
    """The numbers of images and steps that a call would take."""
    monkeypatch.setattr(base, "MOST", 4096)
    found = {}

    def draw(model, example, count, *_):
        found["images"] = count

    def invert(model, made, example, steps, *_, **__):
        found["inversion"] = steps

    monkeypatch.setattr(synthetic, "synthesise", draw)
    monkeypatch.setattr(synthetic, "as_told", lambda model, made, *_: made)
    monkeypatch.setattr(synthetic, "inverted", invert)
    return found


NET, EXAMPLE = (
    nn.Sequential(nn.Conv2d(3, 600, 3), nn.Conv2d(600, 600, 3)),
    torch.zeros(1, 3, 32, 32),
)


@pytest.mark.parametrize(
    ("word", "images", "steps"), [("quick", 64, 3), ("default", 64, 12), ("long", 256, 30)]
)
def test_words_stand_for_numbers(counted, word, images, steps):
    source = Regression(effort=word).inputs()
    assert source == Synthetic(effort=word)
    source._make(NET, EXAMPLE, 0, False)
    assert counted == {"images": images, "inversion": steps}
    Synthetic(images=5, inversion=7, effort=word)._make(NET, EXAMPLE, 0, False)
    assert counted == {"images": 5, "inversion": 7}


def test_words_are_checked():
    for make in (Synthetic, Regression):
        with pytest.raises(UsageError, match=r"unknown effort 'lng'.*long"):
            make(effort="lng")
    with pytest.raises(UsageError, match=r"effort: 'lbyl' always takes the same"):
        bequest.prune(NET, EXAMPLE, restorer="lbyl", effort="long")


def test_the_word_stands_in_the_recipe():
    net, example = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.zeros(1, 4)
    plans = [
        bequest.prune(net, example, effort=word, round_to=1).plan.recipe["restorer"]
        for word in (None, "quick")
    ]
    assert [plan.get("effort") for plan in plans] == [None, "quick"]

"""What a restorer by walk of one's own answers is checked before it is written."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bequest
from bequest.errors import ModelError
from bequest.restorers.by_walk import ByWalk
from bequest.restorers.refit import Change, Seen


class Own(ByWalk):
    """Answers what a function makes of a layer."""

    def __init__(self, answer):
        self.answer = answer

    def refit(self, seen: Seen) -> Change:
        return self.answer(seen)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def pruned(answer, model=None):
    data = [torch.randn(64, 6, generator=torch.Generator().manual_seed(1))]
    return bequest.prune(
        model or network(), torch.zeros(2, 6), 0.5, restorer=Own(answer), data=data, round_to=1
    )


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda seen: None, TypeError, "'Own': '2': expected a Change, found NoneType"),
        (
            lambda seen: Change(torch.zeros(1)),
            ValueError,
            r"weight of shape \(3, 8\), found \(1,\)",
        ),
        (lambda seen: Change(seen.weight.double() * torch.nan), ModelError, "'2'.* finite change"),
        (lambda seen: Change(biases={"2.bias": torch.zeros(1)}), ValueError, "expected 3 gains"),
        (lambda seen: Change(biases={"nope": torch.zeros(3)}), ValueError, "found 'nope'"),
        (lambda seen: Change(biases={None: torch.zeros(3)}), ValueError, "found None"),
    ],
)
def test_what_does_not_fit_is_refused_with_restorer_and_layer(answer, error, message):
    with pytest.raises(error, match=message):
        pruned(answer)


def test_a_bias_that_another_layer_reads_is_not_changed():
    model = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)
    )
    model[4].bias = model[2].bias
    shift = lambda seen: Change(biases={bias: torch.ones(16) for bias in seen.owned})  # noqa: E731
    with pytest.raises(ValueError, match="nothing else reads"):
        pruned(shift, model.eval())


def test_what_fits_is_written():
    found = pruned(lambda seen: Change(biases={"2.bias": torch.ones(3)}))
    torch.testing.assert_close(found.model[2].bias, network()[2].bias + 1)
    assert found.report.groups[0].restored_by == "Own"

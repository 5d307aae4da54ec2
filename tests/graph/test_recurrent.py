"""Recurrent layers: a hidden unit leaves with its rows in every gate and what reads it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bequest
from tests.graph.masking import assert_reloaded_and_found, plainly
from tests.random_networks.oracle import masked

STACKED = {"num_layers": 2, "bidirectional": True}


class Tagger(nn.Module):
    """linear → recurrent → linear, of all outputs or of the last states."""

    def __init__(self, kind: type[nn.RNNBase], reads: str = "outputs", **more) -> None:
        super().__init__()
        self.first, self.reads = nn.Linear(5, 12), reads
        self.cell = kind(12, 16, batch_first=True, **more)
        width = more.get("proj_size") or 16
        both = 2 if reads == "outputs" and more.get("bidirectional") else 1
        self.second, self.last = nn.Linear(width * both, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs, states = self.cell(torch.relu(self.first(x)))
        if self.reads == "states":
            states = states[0] if isinstance(states, tuple) else states
            outputs = states[-1]
        return self.last(torch.tanh(self.second(outputs)))


class Unrolled(nn.Module):
    """A cell that the code calls step by step, from a state of its own making or from zeros."""

    def __init__(self, kind: type[nn.LSTMCell], given: bool) -> None:
        super().__init__()
        self.first, self.cell, self.last = nn.Linear(5, 12), kind(12, 16), nn.Linear(16, 3)
        self.given = given

    def forward(self, x: Tensor) -> Tensor:
        state = None
        if self.given:
            state = torch.zeros(len(x), 16).to(x)
            state = (state, state) if isinstance(self.cell, nn.LSTMCell) else state
        for step in torch.relu(self.first(x)).unbind(1):
            state = self.cell(step, state)
        return self.last(state[0] if isinstance(state, tuple) else state)


class Written(nn.Module):
    """A recurrence and a decaying state in the code's own words, from zeros of a width in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(5, 16), nn.Linear(16, 16, bias=False)
        self.decay, self.last = nn.Parameter(torch.rand(16)), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        state, slow = torch.zeros(len(x), 16).to(x), x.new_zeros(len(x), 16)
        for step in self.first(x).unbind(1):
            state = torch.tanh(step + self.again(state))
            slow = self.decay * slow + state
        return self.last(slow)


class Translator(nn.Module):
    """The last states of one recurrent layer are the first of another."""

    def __init__(self) -> None:
        super().__init__()
        self.reader, self.writer = (nn.LSTM(5, 16, 2, batch_first=True) for _ in range(2))
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, states = self.reader(x)
        return self.last(self.writer(x, states)[0])


NETWORKS = {
    **{
        f"{kind.__name__}, {reads}, {more}": lambda k=kind, r=reads, m=more: Tagger(k, r, **m)
        for kind in (nn.RNN, nn.GRU, nn.LSTM)
        for reads in ("outputs", "states")
        for more in ({}, STACKED)
    },
    "relu": lambda: Tagger(nn.RNN, nonlinearity="relu", bias=False),
    "projected": lambda: Tagger(nn.LSTM, proj_size=6, bias=False),
    "projected, stacked": lambda: Tagger(nn.LSTM, proj_size=6, **STACKED),
    **{
        f"{kind.__name__}, {given}": lambda k=kind, g=given: Unrolled(k, g)
        for kind in (nn.RNNCell, nn.GRUCell, nn.LSTMCell)
        for given in (False, True)
    },
    "written out": Written,
    "translator": Translator,
}


def drawn(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return NETWORKS[name]().double().eval(), torch.randn(2, 4, 5).double()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_hidden_units_leave_exactly(name, tmp_path):
    model, x = drawn(name)
    pruned = plainly(model, x)
    dense = masked(model, pruned.plan.surgery)
    torch.testing.assert_close(pruned.model(x), dense(x), rtol=1e-9, atol=1e-9)
    assert pruned.report.after.params < 0.45 * pruned.report.before.params
    assert not pruned.report.refused
    assert_reloaded_and_found(pruned, dense, drawn(name)[0], x, tmp_path / "out")


def test_modules_say_their_new_widths():
    model, x = drawn("projected, stacked")
    cell = plainly(model, x).model.cell
    assert (cell.input_size, cell.hidden_size, cell.proj_size) == (6, 8, 3)


def test_layers_behind_are_restored_and_a_longer_sequence_runs():
    model, x = drawn("LSTM, outputs, {}")
    plain, restored = (
        bequest.prune(model, x, {"cell*": 0.5}, restorer=restorer, progress=False).plan.groups[0]
        for restorer in ("none", "regression")
    )
    assert restored.restored_by == "regression"
    assert restored.kept == plain.kept == 8
    assert (
        bequest.prune(model, x, restorer="none", progress=False).model(x.repeat(1, 3, 1)).ndim == 3
    )


class Begun(nn.Module):
    """A first state that is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.GRU(5, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return self.last(self.cell(x, state)[0])


def test_a_state_that_is_given_keeps_its_width_and_is_named():
    with pytest.warns(bequest.errors.NothingPrunedWarning, match="begins as the network's input"):
        pruned = plainly(Begun().eval(), (torch.randn(2, 4, 5), torch.randn(1, 2, 16)))
    assert not pruned.plan.groups

"""Recurrent layers: what a hidden unit said is handed on to the gates and layers that read it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bequest
from bequest.calibration.samples import Samples
from bequest.restorers import Regression
from tests.architectures.planting import PlantedFirst

N = 8
"""Hidden units of a layer and direction."""


class Tagger(nn.Module):
    """linear → recurrent → linear, of all outputs or of the last states."""

    def __init__(self, kind: type[nn.RNNBase], states: bool = False, **more) -> None:
        super().__init__()
        self.cell, self.states = kind(5, N, batch_first=True, **more), states
        directions = 2 if more.get("bidirectional") and not states else 1
        self.last = nn.Linear((more.get("proj_size") or N) * directions, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs, state = self.cell(x)
        if self.states:
            outputs = (state[0] if isinstance(state, tuple) else state)[-1]
        return self.last(outputs)


STACKED = {"num_layers": 2, "bidirectional": True}
NETWORKS = {
    "lstm": lambda: Tagger(nn.LSTM, **STACKED),
    "gru": lambda: Tagger(nn.GRU, **STACKED),
    "rnn": lambda: Tagger(nn.RNN),
    "relu": lambda: Tagger(nn.RNN, nonlinearity="relu", bias=False),
    "projected": lambda: Tagger(nn.LSTM, proj_size=4, num_layers=2),
    "states": lambda: Tagger(nn.GRU, states=True, **STACKED),
}
RESTORERS = {
    "lbyl": {"restorer": "lbyl"},
    "regression": {"restorer": Regression(ridge=1e-12, refine=0), "data": True},
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = NETWORKS[name]().double().eval()
    for tensor in model.cell.parameters():
        nn.init.normal_(tensor, std=0.5)
    return model, torch.randn(16, 4, 5, dtype=torch.float64)


def copy_unit(cell: nn.RNNBase, source: int, target: int) -> None:
    """In every layer and direction: the rows of all gates."""
    for name, tensor in cell.named_parameters():
        if "weight_hr" not in name:
            gates = tensor.detach().view(-1, N, *tensor.shape[1:])
            gates[:, target] = gates[:, source]


def blocks(model: nn.Module) -> int:
    """Layers and directions whose units are channels of their own."""
    return 1 if model.states else model.cell.num_layers * (1 + model.cell.bidirectional)


def pruned_of(model: nn.Module, x: Tensor, ratio: float, **settings) -> bequest.Pruned:
    if settings.pop("data", False):
        settings["data"] = Samples(((x,),), real=True)
    return bequest.prune(
        model, x, {"cell.weight_ih*": ratio}, round_to=1, progress=False, **settings
    )


@pytest.mark.parametrize(
    ("name", "restorer"),
    [*((name, "regression") for name in NETWORKS), ("lstm", "lbyl"), ("rnn", "lbyl")],
)
@torch.no_grad()
def test_duplicates_leave_without_a_change(name, restorer):
    model, x = made(name)
    for source, target in ((3, 0), (4, 5)):
        copy_unit(model.cell, source, target)
    leave = tuple(N * block + unit for block in range(blocks(model)) for unit in (0, 5))
    criterion = PlantedFirst({"cell.weight_ih_l0": leave})
    pruned = pruned_of(model, x, 2 / N, criterion=criterion, **RESTORERS[restorer])
    group = pruned.plan.groups[0]
    assert (group.removed, group.restored_by) == (leave, restorer)
    assert group.reconstruction_error < 1e-5
    torch.testing.assert_close(pruned.model(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru", "projected"])
@torch.no_grad()
def test_less_is_lost_than_without_a_restorer(name):
    model, x = made(name)
    wanted, lost = model(x), {}
    settings = {"none": {"restorer": "none"}, "regression": {"data": True}}
    for restorer, one in settings.items():
        pruned = pruned_of(model, x, 0.25, **one)
        lost[restorer] = float((pruned.model(x) - wanted).norm())
    assert lost["regression"] < 0.9 * lost["none"]
    (group, *_) = pruned.plan.groups
    assert not [note for note in group.notes if "not refitted" in note]
    assert group.reconstruction_error < group.unrestored_error


def steps_of(cell: nn.RNNBase, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the gates read of inputs and outputs, and what they make of it, step by step."""
    w, v, b, c = (
        getattr(cell, f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h, before, first, second = x.new_zeros(len(x), N), [], [], []
    sums = torch.zeros_like(h)
    for step in x.unbind(1):
        before.append(h)
        first.append(step @ w.T + b)
        second.append(h @ v.T + c)
        if isinstance(cell, nn.LSTM):
            i, f, g, o = (first[-1] + second[-1]).chunk(4, 1)
            sums = f.sigmoid() * sums + i.sigmoid() * g.tanh()
            h = o.sigmoid() * sums.tanh()
        else:
            (r, z, n), (s, y, m) = first[-1].chunk(3, 1), second[-1].chunk(3, 1)
            n = (n + (r + s).sigmoid() * m).tanh()
            h = (1 - (z + y).sigmoid()) * n + (z + y).sigmoid() * h
    return tuple(torch.stack(one, 1).flatten(0, 1) for one in (before, first, second))


def ridge(rows: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """ΔW and Δb of the ridge regression about means."""
    x, e = rows - rows.mean(0), errors - errors.mean(0)
    gram = x.T @ x
    penalty = 1e-2 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    change = torch.linalg.solve(gram + penalty, x.T @ e).T
    return change, errors.mean(0) - change @ rows.mean(0)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@torch.no_grad()
def test_gates_are_the_solutions_of_naive_regressions(kind):
    torch.manual_seed(0)
    model = Tagger(kind).double().eval()
    x = torch.randn(80, 6, 5, dtype=torch.float64)
    pruned = pruned_of(model, x, 0.5, restorer=Regression(refine=0), data=True)
    kept = [i for i in range(N) if i not in pruned.plan.groups[0].removed]
    gates = 4 if kind is nn.LSTM else 3
    rows = torch.tensor([N * gate + i for gate in range(gates) for i in kept])
    w, v = model.cell.weight_ih_l0[rows], model.cell.weight_hh_l0[rows][:, kept]
    b, c = model.cell.bias_ih_l0[rows], model.cell.bias_hh_l0[rows]
    before, _, second = steps_of(model.cell, x)
    inputs, states = x.flatten(0, 1), before[:, kept]
    lost = second[:, rows] - states @ v.T - c  # inputs are all there
    joint = slice(None if kind is nn.LSTM else 2 * len(kept))
    change, bias = ridge(torch.cat([inputs, states], 1), lost[:, joint])
    w[joint] += change[:, :5]
    v[joint] += change[:, 5:]
    b[joint] += bias
    if kind is nn.GRU:
        new = slice(2 * len(kept), None)
        change, bias = ridge(states, lost[:, new])
        v[new] += change
        c[new] += bias
    cell = pruned.model.cell
    found = cell.weight_ih_l0, cell.weight_hh_l0, cell.bias_ih_l0, cell.bias_hh_l0
    for one, wanted in zip(found, (w, v, b, c), strict=True):
        torch.testing.assert_close(one.detach(), wanted, rtol=1e-6, atol=1e-8)


@torch.no_grad()
def test_what_is_refitted_reloads_and_runs_on_longer_sequences(tmp_path):
    model, x = made("lstm")
    pruned = pruned_of(model, x, 0.5, data=True)
    pruned.save(tmp_path / "out")
    again = bequest.load(tmp_path / "out", made("lstm")[0])
    longer = x.repeat(1, 3, 1)
    assert torch.equal(again(longer), pruned.model(longer))


class Twice(nn.Module):
    """The same recurrent layer over two sequences: its gates have two teachers."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.GRU(5, N, batch_first=True), nn.Linear(2 * N, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.cell(x)[0], self.cell(x.flip(1))[0]], 2))


def test_shared_recurrent_layers_are_left_as_they_are_and_said():
    torch.manual_seed(0)
    model, x = Twice().double().eval(), torch.randn(32, 6, 5, dtype=torch.float64)
    (group,) = pruned_of(model, x, 0.5, data=True).plan.groups
    assert any("not refitted: cell.weight_hh_l0" in note for note in group.notes)

"""Adversarial distillation: steps as they should be, gains beside inputs, the rest untouched."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

import bequest
from bequest import config
from bequest.calibration.samples import Samples
from bequest.calibration.walk import Walk
from bequest.errors import UsageError
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.restorers import Regression, distillation
from bequest.restorers.distillation import Distillation
from bequest.surgery.cut import Cut
from tests.networks import randomise
from tests.restorers.test_refine import Attention, Block, Gated, made


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(distillation, "STEPS", 24)
    monkeypatch.setattr(distillation, "RATE", 0.01)


class Masked(nn.Module):
    """A classifier of a batch, a table of it and tokens; the stem writes what nothing prunes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.inner, self.head = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = self.inner(self.stem(x) * mask).tanh()
        return self.head(hidden)


def test_the_loss_is_that_of_the_formula():
    torch.manual_seed(1)
    dense = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4)).double().requires_grad_(False)
    pruned = deepcopy(dense)
    pruned[1].weight.data.mul_(torch.rand(4, 6, dtype=torch.float64) * 2)
    x = torch.randn(16, 5, dtype=torch.float64) * 3
    walk = Walk(Cut.of(group(read(trace(dense, x[:8])))), dense, pruned)
    samples = Samples(((x[:8],), (x[8:],)), real=True)
    walk.run(samples.chunks, lambda _: None, self_calibrate=False)
    one = Distillation(walk, samples, ["1.weight"], radius=0.1, seed=3)

    here = x[:8]
    first, second = pruned(here).topk(2).indices.unbind(1)
    slope = (pruned[1].weight[first] - pruned[1].weight[second]) @ pruned[0].weight
    beside = here - 0.1 * x.std() * slope.sign()
    spread = (dense(x) - dense(x).mean(0)).square().sum() / 2
    wanted = sum((pruned(at) - dense(at)).square().sum() / spread for at in (here, beside))
    assert one.loss(one.tensors, 0).item() == pytest.approx(wanted.item(), rel=1e-9)


def test_what_is_learnt_from_lies_between_two_inputs_nearer_to_its_own():
    model = randomise(Masked()).eval()
    masks = torch.randint(3, (2, 8, 8))
    x = 10.0 ** torch.arange(16.0).view(2, 8, 1).expand(2, 8, 6)  # tells who has a part in it
    samples = Samples(tuple(zip(x, masks, strict=True)), real=True)
    cut = Cut.of(group(read(trace(model, (x[0], masks[0])))))
    walk = Walk(cut, model, deepcopy(model))
    walk.run(samples.chunks, lambda _: None, self_calibrate=False)
    one = Distillation(walk, samples, ["head.weight"], radius=0.1, seed=3)
    partners = set()
    for _ in range(20):
        mixed, mask = one._mixed(samples.chunks[0])
        assert torch.equal(mask, masks[0])
        share = (mixed - x[0]) / (x.view(-1, 6)[:, None] - x[0])  # (partner, input, feature)
        able = ((share >= 0) & (share <= 0.5)).all(2) & (share[..., :1] == share).all(2)
        assert able.any(0).all()
        partners |= {int(mixed[0, 0] > 1e7)}
    assert partners == {0, 1}  # those of other chunks, too


def error_beside(dense: nn.Module, pruned: nn.Module, x: Tensor, reach: float) -> float:
    """Of the change from x to where the pruned network's margin falls."""
    x = x.clone().requires_grad_()
    first, second = pruned(x).topk(2, 1).values.unbind(1)
    (slope,) = torch.autograd.grad((first - second).sum(), x)
    beside = x - reach * slope.sign()
    with torch.no_grad():
        return float((pruned(beside) - dense(beside)).square().sum())


@pytest.mark.parametrize("real", [True, False])
def test_the_pruned_network_follows_the_dense_one_beside_inputs_it_has_not_seen(real):
    torch.manual_seed(0)
    layers = nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 5)
    model, x = nn.Sequential(*layers).eval(), torch.randn(768, 12)
    errors = []
    for radius in (0.0, 0.1):
        restorer = Regression(images=256, inversion=0, refine=0, neighbourhood=radius)
        data = [x[:256]] if real else None
        found = bequest.prune(model, x[:2], 0.5, restorer=restorer, data=data, round_to=1)
        errors.append(error_beside(model, found.model, x[256:], 0.1))
    assert errors[1] < errors[0]


@pytest.mark.parametrize(("network", "dtype"), [(Gated, torch.float16), (Attention, torch.float32)])
def test_networks_that_are_no_classifiers_take_it_too(network, dtype):
    model, x = made(network)
    model, example = model.to(dtype), x[:2].to(dtype)
    first, second = (
        named_tensors(
            bequest.prune(
                model,
                example,
                0.5,
                restorer=Regression(refine=0, neighbourhood=0.1),
                data=[x[:64]],
                round_to=1,
            ).model
        )
        for _ in range(2)
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert all(value.dtype == dtype for value in first.values())


def test_what_pruning_does_not_change_stays_and_only_real_numbers_move():
    torch.manual_seed(0)
    model = randomise(Masked()).eval()
    x, mask = torch.randn(64, 6), torch.ones(64, 8, dtype=torch.int64)
    found = bequest.prune(
        model, (x[:2], mask[:2]), 0.5, restorer=Regression(refine=0, neighbourhood=0.1),
        data=[(x, mask)], round_to=1,
    )  # fmt: skip
    assert torch.equal(found.model.stem.weight, model.stem.weight)
    samples = Samples(((x, mask), (2 * x, mask)), real=True)
    found = distillation.reach(samples, 0.1)
    assert found == [pytest.approx(0.1 * float(torch.cat([x, 2 * x]).std())), 0]


def test_steps_that_diverge_leave_the_weights_of_the_walk(monkeypatch):
    model, x = made(Block)
    monkeypatch.setattr(distillation, "RATE", 1e30)
    plain, vain = (
        bequest.prune(model, x[:2], 0.5, data=[x[:32]], round_to=1,
                      restorer=Regression(refine=0, neighbourhood=radius))
        for radius in (0.0, 0.1)
    )  # fmt: skip
    tensors = named_tensors(plain.model)
    assert all(torch.equal(value, tensors[n]) for n, value in named_tensors(vain.model).items())
    assert any("distilled in vain" in note for one in vain.report.groups for note in one.notes)


class Tokens(nn.Module):
    """Reads whole numbers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(9, 6), nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.inner(self.table(tokens)).relu()).mean(1)


def test_tokens_have_no_neighbours():
    with pytest.raises(UsageError, match="neighbourhood moves inputs that are real numbers"):
        bequest.prune(
            Tokens().eval(), torch.zeros(2, 4, dtype=torch.int64), 0.5,
            restorer=Regression(neighbourhood=0.1), round_to=1,
        )  # fmt: skip


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "0.1", None])
def test_wrong_radii_are_refused(value):
    with pytest.raises(UsageError, match="expected neighbourhood ≥ 0"):
        Regression(neighbourhood=value)


def test_plans_say_it_and_older_ones_stay_the_same():
    assert "neighbourhood" not in str(config.to_json(Regression()))
    given = Regression(neighbourhood=0.02)
    assert config.from_json("restorer", config.to_json(given)) == given


class Ending(nn.Module):
    """A part of the input is overwritten, and the output ends in what is asked for."""

    def __init__(self, end) -> None:
        super().__init__()
        self.inner, self.head, self.end = nn.Linear(6, 12), nn.Linear(12, 3), end

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 1:3] = x[:, :1]
        return self.end(self.head(self.inner(y).relu()))


def beside(end) -> bequest.Pruned:
    restorer = Regression(images=16, inversion=0, refine=0, neighbourhood=0.1)
    model, x = randomise(Ending(end)).eval(), torch.randn(4, 6)
    return bequest.prune(model, x, 0.5, restorer=restorer, round_to=1, progress=False)


def test_what_code_overwrites_is_followed_and_no_gradients_stay_behind():
    found = beside(nn.Identity()).model
    assert all(parameter.grad is None for parameter in found.parameters())


@pytest.mark.parametrize("end", [torch.detach, lambda y: (y > 0).float(), torch.ceil])
def test_outputs_without_derivatives_are_refused(end):
    with pytest.raises(UsageError, match="can be differentiated"):
        beside(end)


@pytest.mark.parametrize("stem", [torch.detach, lambda x: (x > 0).float(), torch.round])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("refine", [0, 4])
def test_inputs_that_outputs_do_not_follow_are_refused(stem, frozen, refine):
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.head = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(stem(self.first(x))).relu())

    model = Cut().requires_grad_(not frozen)
    restorer = Regression(images=16, inversion=0, refine=refine, neighbourhood=0.1)
    with pytest.raises(UsageError, match="can be differentiated"):
        bequest.prune(model, torch.randn(1, 6), 0.5, restorer=restorer, round_to=1)


class Several(nn.Module):
    """Scores, some of which are never allowed, and what is one but for rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(6, 24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.head(self.inner(x).relu())
        forbidden = torch.tensor([False, True, False, False])
        unit = nn.functional.normalize(scores, dim=1).square().sum(1, keepdim=True)
        return scores.masked_fill(forbidden, -torch.inf), unit


def test_outputs_that_say_nothing_do_not_keep_the_others_from_it():
    torch.manual_seed(0)
    dense = randomise(Several()).eval()
    pruned, x = deepcopy(dense), torch.randn(2, 32, 6)
    pruned.head.weight.data.mul_(1.5)
    walk = Walk(Cut.of(group(read(trace(dense, x[0])))), dense, pruned)
    samples = Samples(tuple((chunk,) for chunk in x), real=True)
    walk.run(samples.chunks, lambda _: None, self_calibrate=False)
    one = Distillation(walk, samples, ["head.weight"], radius=0.1, seed=0)
    scores, wanted = pruned(x[0])[0][:, [0, 2, 3]], dense(x.view(-1, 6))[0][:, [0, 2, 3]]
    spread = (wanted - wanted.mean(0)).square().sum() / 2
    here = one._distance(pruned(x[0]), [x[0]])
    error = (scores - wanted[:32]).square().sum() / spread
    assert here.item() == pytest.approx(error.item(), 1e-4)
    gain = one.run(24)
    assert gain.after < 0.5 * gain.before


def test_a_loss_that_is_no_number_is_told_of():
    (plan,) = beside(torch.sqrt).plan.groups
    assert "distilled in vain: its weights are those of the walk" in plan.notes

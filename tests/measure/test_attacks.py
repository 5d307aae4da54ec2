from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

import bequest
from bequest.errors import DataError, MissingExtraError, UsageError
from bequest.measure import attacks


class Planes(nn.Module):
    """Two classes over two pixels: the first wins where x0 is larger."""

    def forward(self, x):
        return x


def batches(x, y):
    return [(torch.tensor(x), torch.tensor(y))]


def small_network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 5)).eval()


def images():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, 4, 4, generator=generator)
    return x, small_network()(x).argmax(1)


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_an_input_is_robust_up_to_half_its_margin(attack):
    """x = (0.6, 0.4) turns at 0.1, x = (0.2, 0.8) at 0.3; (0.4, 0.6) is labelled wrongly."""
    data = batches([[0.6, 0.4], [0.2, 0.8], [0.4, 0.6]], [0, 1, 0])

    found = [bequest.robustness(Planes(), data, attack, eps).robust for eps in (0.09, 0.11, 0.31)]

    assert found == [2, 1, 0]
    assert bequest.robustness(Planes(), data, attack, 0.09).correct == 2
    assert bequest.robustness(Planes(), data, attack, 0.09).robust_accuracy == pytest.approx(
        200 / 3
    )


def test_inputs_stay_in_the_range():
    """(1, 0.5) could turn at 0.25 if pixels went where they like; the range leaves it 0.5."""
    data = batches([[1.0, 0.5]], [0])

    assert bequest.robustness(Planes(), data, "fgsm", 0.3).robust == 0
    assert bequest.robustness(Planes(), data, "fgsm", 0.3, input_range=(0.4, 1.1)).robust == 0
    assert bequest.robustness(Planes(), data, "fgsm", 0.3, input_range=(0.5, 0.7 + 0.3)).robust == 0
    assert bequest.robustness(Planes(), data, "fgsm", 9.0, input_range=(0, 1)).robust == 0

    class Capped(Planes):
        def forward(self, x):
            assert x.min() >= 0 and x.max() <= 1
            return x

    bequest.robustness(Capped(), data, "fgsm", 0.7)
    bequest.robustness(Capped(), data, "pgd", 0.7)


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_one_output_before_and_behind_a_sigmoid_is_the_same(attack):
    torch.manual_seed(0)
    logit = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    x = torch.rand(60, 6)
    data = [(x, (logit(x)[:, 0] > 0).long())]
    behind = nn.Sequential(logit, nn.Sigmoid()).eval()

    plain = bequest.robustness(logit, data, attack, 0.08)
    probable = bequest.robustness(behind, data, attack, 0.08, output="probabilities")

    assert plain.correct == probable.correct == 60
    assert 0 < plain.robust == probable.robust < 60


def test_top_k_counts_the_benign_best():
    """Outputs (0.5, 0.45, 0) become (0.44, 0.51, 0.18); (0.5, 0.45, 0.39): (0.44, 0.51, 0.57)."""
    model = nn.Linear(3, 3, bias=False)
    model.load_state_dict({"weight": torch.diag(torch.tensor([1.0, 1.0, 3.0]))})
    data = batches([[0.5, 0.45, 0.0], [0.5, 0.45, 0.13]], [0, 0])

    assert bequest.robustness(model, data, "fgsm", 0.06).robust == 0
    found = bequest.robustness(model, data, "fgsm", 0.06, top=2)
    assert (found.correct, found.robust) == (2, 1)


def art_examples(model, x, y, attack, eps, ends=(0.0, 1.0)):
    """The same attack by the Adversarial Robustness Toolbox."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(reduction="sum"),
        input_shape=tuple(x.shape[1:]),
        nb_classes=5,
        clip_values=ends,
        device_type="cpu",
    )
    if attack == "fgsm":
        made = FastGradientMethod(wrapped, eps=eps)
    else:
        made = ProjectedGradientDescent(
            wrapped, eps=eps, eps_step=2.5 * eps / 10, max_iter=10, num_random_init=0, verbose=False
        )
    return torch.from_numpy(made.generate(x.numpy(), y.numpy()))


def test_fgsm_is_that_of_a_known_library():
    pytest.importorskip("art", reason="needs adversarial-robustness-toolbox")
    (x, y), model = images(), small_network()
    space = attacks._Space.around(x, 0.1, (0, 1))

    found = attacks.fgsm(model, space, y, 1, 0)

    assert torch.allclose(found, art_examples(model, x, y, "fgsm", 0.1), atol=1e-6)
    assert bequest.robustness(model, [(x, y)], "fgsm", 0.1).robust == int(
        (model(art_examples(model, x, y, "fgsm", 0.1)).argmax(1) == y).sum()
    )


def test_pgd_misleads_as_often_as_that_of_a_known_library():
    pytest.importorskip("art", reason="needs adversarial-robustness-toolbox")
    (x, y), model = images(), small_network()

    ours = bequest.robustness(model, [(x, y)], "pgd", 0.05)
    theirs = int((model(art_examples(model, x, y, "pgd", 0.05)).argmax(1) == y).sum())

    assert 0 < ours.robust < 40
    assert abs(ours.robust - theirs) <= 1  # it starts at random, theirs in the middle


def test_pgd_is_no_weaker_than_fgsm_and_autoattack_than_pgd():
    pytest.importorskip("pyautoattack", reason="needs the extra 'robust'")
    (x, y), model = images(), small_network()
    x, y = x[:12], y[:12]

    found = [
        bequest.robustness(model, [(x, y)], attack, 0.05).robust
        for attack in ("fgsm", "pgd", "autoattack")
    ]

    assert found[0] >= found[1] >= found[2]


def test_autoattack_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyautoattack", None)
    with pytest.raises(MissingExtraError, match="robust"):
        bequest.robustness(small_network(), [images()], "autoattack", 0.05)


def test_everything_is_left_as_it_was():
    (x, y), model = images(), small_network()
    model.train()
    legacy = np.random.get_state()  # noqa: NPY002 -- the state that must not change
    states = torch.get_rng_state(), random.getstate(), legacy[1].copy()

    first = bequest.robustness(model, [(x, y)], "pgd", 0.05, seed=3)
    again = bequest.robustness(model, [(x, y)], "pgd", 0.05, seed=3)

    assert first == again
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "fgms"}, "Did you mean 'fgsm'"),
        ({"eps": -0.1}, "≥ 0"),
        ({"eps": float("nan")}, "finite"),
        ({"eps": True}, "eps: expected finite numbers"),
        ({"eps": torch.tensor([True, False])}, "eps: expected finite numbers"),
        ({"input_range": (1, 0)}, "lower end first"),
        ({"input_range": (0, torch.ones(7))}, "broadcast"),
        ({"steps": 0}, "steps"),
        ({"top": 1.5}, "top"),
        ({"output": "logit"}, "probabilities"),
    ],
)
def test_wrong_calls_are_refused(change, message):
    call = {"attack": "fgsm", "eps": 0.1, **change}
    with pytest.raises(UsageError, match=message):
        bequest.robustness(small_network(), [images()], **call)


def test_inputs_out_of_the_range_are_refused():
    x, y = images()
    with pytest.raises(DataError, match="within the input range"):
        bequest.robustness(small_network(), [(5 * x, y)], "fgsm", 0.1)
    with pytest.raises(DataError, match="empty"):
        bequest.robustness(small_network(), [], "fgsm", 0.1)

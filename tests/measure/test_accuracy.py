import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import bequest
from bequest.errors import DataError, ModelError, UsageError
from bequest.measure import evaluate


def batches(x, y, size=7):
    return list(zip(x.split(size), y.split(size), strict=True))


def test_top1_top5_and_loss_are_their_definitions():
    x, y = torch.randn(50, 12), torch.randint(12, (50,))
    result = evaluate(nn.Identity(), batches(x, y))
    order = x.argsort(dim=1, descending=True)
    assert result.top1 == pytest.approx(100 * (order[:, 0] == y).double().mean().item())
    in_five = (order[:, :5] == y[:, None]).any(dim=1)
    assert result.top5 == pytest.approx(100 * in_five.double().mean().item())
    assert result.loss == pytest.approx(cross_entropy(x.double(), y).item())
    assert (result.count, result.nonfinite) == (50, 0)


def test_top5_needs_five_classes():
    y = torch.randint(4, (9,))
    assert evaluate(nn.Identity(), batches(torch.randn(9, 4), y)).top5 is None
    assert evaluate(nn.Identity(), batches(torch.randn(9, 5), y)).top5 == 100


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
def test_one_logit_is_a_binary_classifier(shape):
    x, y = torch.randn(shape), torch.randint(2, (40,))
    result = evaluate(nn.Identity(), batches(x, y))
    assert result.top1 == pytest.approx(100 * ((x.flatten() > 0) == y).double().mean().item())
    expected = binary_cross_entropy_with_logits(x.flatten().double(), y.double())
    assert result.loss == pytest.approx(expected.item())
    assert result.top5 is None


def test_nonfinite_logits_are_wrong_and_counted():
    x = 20 * torch.eye(6)
    x[1, 0], x[4, 4] = float("nan"), float("inf")
    result = evaluate(nn.Identity(), batches(x, torch.arange(6), 4))
    assert result.nonfinite == 2
    assert result.top1 == result.top5 == pytest.approx(100 * 4 / 6)
    assert math.isfinite(result.loss)
    nothing = evaluate(nn.Identity(), [(torch.full((3, 6), float("nan")), torch.arange(3))])
    assert (nothing.top1, nothing.nonfinite) == (0, 3)
    assert math.isnan(nothing.loss)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3))
    model[0].eval()  # a frozen batch norm in a network that trains
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    data = [(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.arange(4) % 3)]
    first, second = evaluate(model, data), evaluate(model, data)
    assert first == second
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(DataError):
        evaluate(model, [(torch.randn(4, 3), torch.full((4,), 3))])
    assert modes == [module.training for module in model.modules()]


def test_inputs_follow_the_dtype_of_the_model():
    model = nn.Linear(3, 4).double()
    assert evaluate(model, [(torch.randn(5, 3), torch.arange(5) % 4)]).count == 5


def test_dicts_tuples_and_outputs_with_logits():
    class Two(nn.Module):
        def forward(self, a, b):
            return SimpleNamespace(logits=a + b)

    a, b, y = torch.randn(8, 6), torch.randn(8, 6), torch.randint(6, (8,))
    expected = evaluate(nn.Identity(), [(a + b, y)])
    assert evaluate(Two(), [({"b": b, "a": a}, y)]) == expected
    assert evaluate(Two(), [((a, b), y)]) == expected


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((torch.randn(2, 3), torch.tensor([0, 3])), DataError, "labels 0 to 2.*found 0 to 3"),
        ((torch.randn(2, 3), torch.tensor([-1, 0])), DataError, "found -1 to 0"),
        ((torch.randn(2, 3), torch.tensor([0])), DataError, "2 integer labels"),
        ((torch.randn(2, 3), torch.tensor([0.0, 1.0])), DataError, "float32"),
        ((torch.randn(2, 3, 4), torch.tensor([0, 1])), ModelError, r"found \(2, 3, 4\)"),
        (torch.randn(2, 3), UsageError, "found Tensor"),
        ((torch.randn(2, 3),), UsageError, "found 1 items"),
    ],
)
def test_what_does_not_fit_is_refused(batch, error, message):
    with pytest.raises(error, match=message):
        evaluate(nn.Identity(), [batch])


def test_an_empty_loader_is_refused():
    with pytest.raises(DataError, match="empty loader"):
        evaluate(nn.Identity(), [])


def test_progress_is_silent_where_there_is_no_terminal(capsys):
    evaluate(nn.Identity(), [(torch.randn(2, 3), torch.arange(2))], progress=True)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_progress_shows_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the stream for a terminal
    data = [(torch.randn(2, 3), torch.arange(2))]
    assert evaluate(nn.Identity(), data, progress=True).count == 2
    assert "evaluating" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_device_gets_a_copy():
    model = nn.Linear(3, 4)
    data = [(torch.randn(5, 3), torch.arange(5) % 4)]
    there = evaluate(model, data, device="cuda")
    assert model.weight.device.type == "cpu"
    assert there.top1 == evaluate(model, data).top1


def test_a_device_that_is_none_is_refused_by_name():
    model, tokens = nn.Linear(3, 2), torch.zeros(64, dtype=torch.long)
    for call in (
        lambda: evaluate(model, [], device="gpu"),
        lambda: bequest.perplexity(model, tokens, window=8, device="gpu"),
        lambda: bequest.robustness(model, [], device="gpu"),
    ):
        with pytest.raises(UsageError, match=r"device: expected a device .* found 'gpu'"):
            call()

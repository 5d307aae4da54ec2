"""Inversion: images whose statistics come out as the batch norms have stored them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bequest.calibration.inputs import inverted as inversion
from bequest.calibration.inputs.inverted import invert, mismatch
from tests.networks import Plain, randomise


def make_images(count=16):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def total_mismatch(model, images):
    found = []
    hooks = [
        module.register_forward_pre_hook(lambda m, args: found.append(float(mismatch(m, args[0]))))
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        model.eval()(images)
    for hook in hooks:
        hook.remove()
    return sum(found)


def test_mismatch_is_the_distance_of_the_moments_in_deviations():
    norm = nn.BatchNorm1d(2, eps=0.0).double()
    value = torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 11.0]], dtype=torch.float64)
    norm.running_mean.copy_(torch.tensor([1.0, 7.0]))
    norm.running_var.copy_(torch.tensor([4.0, 2.0]))
    var = torch.tensor([2 / 3, 8.0], dtype=torch.float64)
    shift = ((2 - 1) / 2) ** 2 + 0
    stretch = ((var / torch.tensor([4.0, 2.0])).sqrt() - 1).square().sum()
    torch.testing.assert_close(mismatch(norm, value), (shift + stretch) / 2)


def test_the_statistics_come_nearer():
    model = randomise(Plain())
    images = make_images()
    fitted = invert(model, images, 20)
    assert total_mismatch(model, fitted) < 0.5 * total_mismatch(model, images)


@pytest.mark.parametrize(
    ("shape", "offset"),
    [((5, 3, 4, 6), 0.0), ((7, 3), 2.0), ((4, 3, 9), 1e4), ((2, 3, 2, 3, 4), 1.0)],
)
def test_moments_are_those_of_float64_and_so_are_their_gradients(shape, offset):
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + offset
    dims = [d for d in range(value.ndim) if d != 1]
    mean, var = inversion.Moments.apply(value)
    exact = value.double()
    torch.testing.assert_close(mean.double(), exact.mean(dims), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(var.double(), exact.var(dims, correction=0), rtol=1e-3, atol=1e-5)
    about_zero = (exact - offset).requires_grad_()
    assert torch.autograd.gradcheck(inversion.Moments.apply, (about_zero,))


@pytest.mark.parametrize("space", [(40, 40), (24, 48), (12, 20)])
def test_fine_structure_stays_where_moments_are_fitted(space):
    model = randomise(Plain())
    images = torch.randn(8, 3, *space, generator=torch.Generator().manual_seed(0))
    change = invert(model, images, 3) - images
    cells = [min(side, round(16 * side / min(space))) for side in space]
    assert change.abs().max() > 0.1
    rows = torch.linalg.matrix_rank(change.flatten(0, 1), atol=1e-4)
    columns = torch.linalg.matrix_rank(change.flatten(0, 1).mT, atol=1e-4)
    assert rows.max() <= min(cells)
    assert columns.max() <= min(cells)
    along = change.flatten(0, 2)  # every line is made of as many numbers as there are cells
    assert torch.linalg.matrix_rank(along, atol=1e-3) <= cells[1]


@pytest.mark.parametrize("space", [(20,), (18, 17, 19), (17, 18, 17, 17)])
def test_images_of_any_dimensions_come_nearer(space):
    model = nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4)).eval()
    images = torch.randn(2, 1, *space, generator=torch.Generator().manual_seed(0))
    model[2].running_mean.fill_(0.5)
    norm = model[2]

    def distance(values):
        with torch.no_grad():
            return float(mismatch(norm, model[1](values.flatten(2))))

    fitted = invert(model, images, 8)
    assert fitted.shape == images.shape
    assert distance(fitted) < distance(images)


def test_the_model_is_left_alone_and_the_same_bits_come_out_twice():
    model = randomise(Plain()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = make_images()
    first, second = (invert(model, images, 3) for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not first.requires_grad
    assert torch.equal(images, make_images())


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 3))


def test_without_batch_norms_images_come_nearer_to_classes_drawn_and_stay_in_range():
    model, images = classifier(), make_images(200).clamp(-1, 1)
    classes = torch.randint(3, (200,), generator=torch.Generator().manual_seed(7))
    losses = []
    for values in (images, invert(model, images, 10, (-1.0, 1.0), seed=7)):
        losses.append(nn.functional.cross_entropy(model(values), classes).item())
        assert -1 <= values.min() < values.max() <= 1
    assert losses[1] < 0.7 * losses[0]


def test_each_image_is_fitted_to_its_class_for_itself():
    model, images = classifier(), make_images(70)
    drawn = torch.randint(3, (70,), generator=torch.Generator().manual_seed(0))
    x = images[:1].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), drawn[:1]), [x])
    first = inversion.RATE * float(images.std()) * gradient.sign()
    fitted = invert(model, images, 1)
    torch.testing.assert_close(fitted[:1], images[:1] - first, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "model",
    [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(2)],
    ids=type,
)
def test_without_stored_statistics_or_logits_nothing_changes(model):
    images = make_images()
    assert torch.equal(invert(model, images, 5), images)


def test_batches_fit_into_memory(monkeypatch):
    model, images = randomise(Plain()), make_images()
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    invert(model, images, 1)
    assert seen == [1, 16]
    seen.clear()
    monkeypatch.setattr(inversion, "MEMORY", 1)
    invert(model, images, 1)
    assert seen == [1] * 17

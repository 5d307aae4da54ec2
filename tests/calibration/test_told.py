"""The first batch norms tell the mean and the deviation of the inputs that a network reads."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import nn

import bequest
from bequest.calibration.inputs import Synthetic
from bequest.calibration.inputs.told import told
from bequest.errors import InputWarning, UsageError

MEAN, DEVIATION = torch.tensor([0.5, 0.4, -1.5]), 0.3


def drawn(count=64, channels=3, space=(12, 12), seed=0):
    images = torch.randn(count, channels, *space, generator=torch.Generator().manual_seed(seed))
    return images.cumsum(-1)[:] / 3 if space else images  # neighbours correlate


def standard(images):
    dims = [d for d in range(images.ndim) if d != 1]
    return (images - images.mean(dims, keepdim=True)) / images.std(dims, keepdim=True)


def read(images, mean=MEAN, deviation=DEVIATION):
    return deviation * standard(images) + mean.view(1, -1, *(1 for _ in images.shape[2:]))


def trained_on(images, *first, behind=()):
    """A network whose batch norms have seen the images, and no others."""
    torch.manual_seed(1)
    stem = first or (nn.Conv2d(images.shape[1], 16, 3, 2, 1), nn.BatchNorm2d(16))
    model = nn.Sequential(*stem, nn.ReLU(), *behind)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def check(found, mean=MEAN, deviation=DEVIATION):
    assert found is not None
    torch.testing.assert_close(found.mean, mean, atol=0.02, rtol=0.02)
    assert found.deviation == pytest.approx(deviation, rel=0.05)


def test_mean_and_deviation_come_back():
    images = drawn()
    found = told(trained_on(read(images)), drawn(1), images, 64)
    check(found)
    assert found.norm == "1"
    torch.testing.assert_close(found.applied(standard(images)), read(images), atol=0.05, rtol=0.05)


def test_they_are_the_naive_solution_of_their_equations():
    images = drawn()
    conv, norm = nn.Conv2d(3, 16, 3, bias=True), nn.BatchNorm2d(16)  # without padding
    torch.manual_seed(3)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    found = told(nn.Sequential(conv, norm).eval(), drawn(1), images, 64)
    sigma = (norm.running_var.double() + norm.eps).sqrt()
    a = conv.weight.double().sum((2, 3)) / sigma[:, None]
    t = (norm.running_mean.double() - conv.bias.double()) / sigma
    gram = a.T @ a
    ridge = 1e-3 * gram.trace() / 3
    mean = torch.linalg.inv(gram + ridge * torch.eye(3)) @ (a.T @ t)
    torch.testing.assert_close(found.mean.double(), mean.detach(), atol=1e-4, rtol=1e-4)
    squares = sigma.square() / conv(standard(images)).var((0, 2, 3))
    assert found.deviation == pytest.approx(float(squares.median()) ** 0.5, rel=1e-3)


class Normalising(nn.Module):
    def forward(self, x):
        return (x / 255 - 0.45) / 0.22


@pytest.mark.parametrize("space", [(20,), (12, 12), (4, 5, 6)])
def test_inputs_of_any_dimensions(space):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(space)]
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(space)]
    images = drawn(space=space)
    model = trained_on(read(images), conv(3, 16, 3, padding=1), norm(16))
    check(told(model, drawn(1, space=space), images, 64))


@pytest.mark.parametrize("space", [(20,), (12, 12)])
def test_a_linear_layer_that_reads_all_of_an_image_tells_them_too(space):
    images = drawn(space=space)
    first = nn.Flatten(), nn.Linear(images[0].numel(), 64), nn.BatchNorm1d(64)
    model = trained_on(read(images), *first, behind=[nn.Linear(64, 4)])
    found = told(model, drawn(1, space=space), images, 64)
    torch.testing.assert_close(found.mean, MEAN, atol=0.1, rtol=0.1)
    assert found.deviation == pytest.approx(DEVIATION, rel=0.1)
    pruned = bequest.prune(model, drawn(1, space=space), 0.5, data=Synthetic(64, inversion=1))
    assert any("as '2' tells" in note for note in pruned.report.notes)


def test_a_network_that_asks_for_half_precision_by_itself_is_refused():
    class Halving(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = trained_on(read(drawn()), behind=[nn.Conv2d(16, 4, 3)]).bfloat16()

        def forward(self, x):
            return self.inner(x.bfloat16())

    with pytest.raises(UsageError, match="Halving does not run on the inputs"):
        bequest.prune(Halving().eval(), drawn(1), 0.5)


def test_a_network_that_normalises_its_inputs_reads_pixels():
    images, mean = drawn(), torch.tensor([120.0, 100.0, 90.0])
    first = Normalising(), nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
    model = trained_on(read(images, mean, 60.0), *first)
    check(told(model, drawn(1), images, 64), mean, 60.0)


def test_a_network_that_takes_four_at_once_is_asked_four_at_a_time():
    class Fours(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = trained_on(read(drawn()))

        def forward(self, x):
            assert len(x) == 4
            return self.inner(x)

    found = told(Fours().eval(), drawn(4), drawn(), 4)
    torch.testing.assert_close(found.mean, MEAN, atol=0.02, rtol=0.02)
    assert found.deviation == pytest.approx(DEVIATION, rel=0.1)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU()),
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)),
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, track_running_stats=False)),
        trained_on(read(drawn()), nn.Conv2d(3, 16, 3), nn.ReLU(), nn.BatchNorm2d(16)),
        trained_on(read(drawn()), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)),
    ],
    ids=["no norm", "never trained", "keeps nothing", "behind a ReLU", "too few filters"],
)
def test_who_tells_nothing_is_not_believed(model):
    assert told(model.eval(), drawn(1), drawn(), 64) is None


def test_made_up_images_get_them_and_the_report_says_so():
    model = trained_on(read(drawn()), behind=[nn.Conv2d(16, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        pruned = bequest.prune(model, drawn(1), 0.5, data=Synthetic(32, inversion=0))
    (note,) = (note for note in pruned.report.notes if "made-up images" in note)
    found = [float(number) for number in re.findall(r"-?\d+\.\d+", note)]
    assert found[:3] == pytest.approx(MEAN.tolist(), abs=0.05)
    assert note.endswith("as '1' tells")
    made = Synthetic(64, inversion=0).make(model, drawn(1), 0)
    images = torch.cat([chunk[0] for chunk in made.chunks])
    torch.testing.assert_close(images.mean((0, 2, 3)), MEAN, atol=0.05, rtol=0.05)


def test_what_has_about_been_normalised_stays_at_zero_mean_and_unit_variance():
    model = trained_on(read(drawn(), torch.tensor([-0.3, -0.3, -0.2]), 1.5))
    made = Synthetic(64, inversion=0).make(model, drawn(1), 0)
    images = torch.cat([chunk[0] for chunk in made.chunks])
    torch.testing.assert_close(images, standard(images), atol=1e-2, rtol=1e-2)
    assert not made.notes


@pytest.mark.parametrize(
    ("value_range", "wrong"), [((-2.0, 1.5), False), ((0.0, 255.0), True), ((5.0, 6.0), True)]
)
def test_a_wrong_range_is_told_from_a_right_one(value_range, wrong):
    model = trained_on(read(drawn(), torch.tensor([0.1, -0.2, -0.1]), 0.8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = Synthetic(32, value_range=value_range, inversion=0).make(model, drawn(1), 0)
    assert any(one.category is InputWarning for one in caught) is wrong
    assert any("training's had the mean (" in note for note in made.notes) is wrong
    low, high = value_range
    assert all(low <= chunk[0].min() and chunk[0].max() <= high for chunk in made.chunks)

import math

import pytest
import torch

from bequest.restorers import LBYL
from bequest.restorers.gaussian import means
from bequest.restorers.weight_space import reconstruction_error
from tests.restorers.units import GELU, IDENTITY, RELU, SIGMOID, halves, make_unit


def test_the_mean_of_a_relu_is_the_closed_form():
    unit = make_unit(n=6, activation=RELU)
    unit.producer.norm.gamma[0] *= -1
    expected = []
    for beta, gamma in zip(unit.producer.norm.beta, unit.producer.norm.gamma.abs(), strict=True):
        a = (beta / gamma).item()
        density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        below = (1 + math.erf(a / math.sqrt(2))) / 2
        expected.append(beta.item() * below + gamma.item() * density)
    assert means(unit).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("activation", [GELU, SIGMOID])
def test_the_mean_is_that_of_many_draws(activation):
    unit = make_unit(n=4, activation=activation)
    norm = unit.producer.norm
    draws = norm.beta + norm.gamma * torch.randn(400_000, 4, dtype=torch.float64)
    torch.testing.assert_close(means(unit), activation.apply(draws).mean(dim=0), rtol=0, atol=6e-3)


def test_a_dead_channel_has_the_mean_of_its_beta():
    unit = make_unit(n=3, activation=GELU)
    unit.producer.norm.gamma.zero_()
    torch.testing.assert_close(means(unit), GELU.apply(unit.producer.norm.beta))


def test_without_batch_norm_no_mean_is_known():
    assert means(make_unit(norm=False)) is None


@pytest.mark.parametrize("activation", [RELU, GELU])
def test_lbyl_by_default_keeps_the_mean_of_what_consumers_read(activation):
    unit, (kept, removed) = make_unit(n=12, activation=activation), halves(12, 7)
    given = LBYL().deliver(unit, kept, removed, seed=0)
    mean = means(unit)
    torch.testing.assert_close(given.matrix @ mean[kept] + given.offset, mean[removed])


def test_offsets_of_means_do_not_count_as_reconstruction():
    unit, (kept, removed) = make_unit(n=12), halves(12, 7)
    by_default, written = LBYL(), LBYL(0.0, 1.0)
    for restorer in (by_default, written):
        given = restorer.deliver(unit, kept, removed, seed=0)
        rows = torch.cat([*unit.producer.folded()[:1], unit.producer.folded()[1][:, None]], dim=1)
        left = rows[removed] - given.matrix @ rows[kept]
        expected = left.norm(dim=1) / rows[removed].norm(dim=1)
        found = reconstruction_error(unit, kept, removed, given)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("restorer", "activation", "norm"),
    [(LBYL(0.0, 1e-2), RELU, True), (LBYL(lambda2=1e-2), RELU, True), (LBYL(), RELU, False)],
)
def test_explicit_lambdas_and_layers_without_statistics_leave_no_offset(restorer, activation, norm):
    unit, (kept, removed) = make_unit(n=12, activation=activation, norm=norm), halves(12, 7)
    assert restorer.deliver(unit, kept, removed, seed=0).offset is None


def test_without_activation_the_bias_itself_is_kept_not_its_mean():
    unit, (kept, removed) = make_unit(n=12, activation=IDENTITY), halves(12, 7)
    given = LBYL().deliver(unit, kept, removed, seed=0)
    _, bias = unit.producer.folded()
    torch.testing.assert_close(given.matrix @ bias[kept] + given.offset, bias[removed])

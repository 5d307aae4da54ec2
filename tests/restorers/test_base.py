from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import bequest
from bequest import config, restorers
from bequest.errors import ModelError
from bequest.restorers import weight_space
from bequest.restorers.weight_space import Delivery, WeightSpace, reconstruction_error
from tests.architectures.planting import PlantedFirst
from tests.restorers.units import GELU, IDENTITY, halves, make_unit

NAMES = {"none", "merge", "sum", "lbyl", "coreset"}


def index(*channels):
    return torch.tensor(channels, dtype=torch.int64)


def test_every_restorer_is_registered_and_exported():
    assert set(config.names("restorer")) >= NAMES
    assert {getattr(restorers, name).name for name in restorers.__all__} >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_configs_survive_json(name):
    given = config.resolve("restorer", name)
    assert config.from_json("restorer", config.to_json(given)) == given


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize(("kind", "norm"), [("conv", True), ("conv", False), ("linear", False)])
def test_deliveries_are_finite_and_repeatable_and_leave_the_unit_alone(name, kind, norm):
    unit = make_unit(n=12, kind=kind, norm=norm, bias=not norm)
    before = unit.producer.weight.clone(), unit.consumers[0].weight.clone()
    restorer, (kept, removed) = config.resolve("restorer", name), halves(12, 7)
    first, second = (restorer.deliver(unit, kept, removed, seed=1) for _ in range(2))
    assert first.matrix.shape == (5, 7)
    assert first.matrix.dtype == torch.float64
    assert torch.equal(first.matrix, second.matrix)
    assert torch.equal(unit.producer.weight, before[0])
    assert torch.equal(unit.consumers[0].weight, before[1])


@pytest.mark.parametrize("name", sorted(NAMES))
def test_nothing_removed_is_nothing_handed_on(name):
    given = config.resolve("restorer", name).deliver(
        make_unit(n=3), index(0, 1, 2), index(), seed=0
    )
    assert given.matrix.shape == (0, 3)
    assert given.offset is None
    assert given.gain is None


@pytest.mark.parametrize(
    ("kept", "removed"),
    [
        (index(0, 1), index(2)),  # channel 3 is nowhere
        (index(0, 1, 2), index(2, 3)),  # channel 2 is twice there
        (index(1, 0), index(2, 3)),  # not ascending
        (index(), index(0, 1, 2, 3)),  # none kept
        (index(0, 1, 2), index(4)),  # no such channel
    ],
)
def test_kept_and_removed_share_out_the_channels(kept, removed):
    with pytest.raises(ValueError, match="ascending"):
        restorers.Plain().deliver(make_unit(n=4), kept, removed, seed=0)


def test_an_outcome_that_is_not_finite_is_refused():
    @dataclass(frozen=True)
    class Diverging(WeightSpace):
        name = "diverging"

        def _deliver(self, unit, kept, removed, seed):
            return Delivery(torch.full((2, 2), torch.inf))

    with pytest.raises(ModelError, match="finite values in the matrix for layer7"):
        Diverging().deliver(make_unit(n=4, name="layer7"), index(0, 1), index(2, 3), seed=0)


def test_a_delivery_of_the_wrong_shape_is_a_programming_error():
    @dataclass(frozen=True)
    class Wrong(WeightSpace):
        name = "wrong"

        def _deliver(self, unit, kept, removed, seed):
            return Delivery(torch.zeros(2, 2), offset=torch.zeros(3))

    with pytest.raises(ValueError, match=r"offset of shape \(2,\)"):
        Wrong().deliver(make_unit(n=4), index(0, 1), index(2, 3), seed=0)


def test_plain_pruning_leaves_nothing_and_reconstructs_nothing():
    unit, (kept, removed) = make_unit(), halves(10, 6)
    given = restorers.Plain().deliver(unit, kept, removed, seed=0)
    assert not given.matrix.any()
    torch.testing.assert_close(
        reconstruction_error(unit, kept, removed, given), torch.ones(4, dtype=torch.float64)
    )


def test_the_reconstruction_error_is_relative_to_the_folded_row():
    unit, (kept, removed) = make_unit(), halves(10, 6)
    matrix = torch.randn(4, 6, dtype=torch.float64)
    weight, bias = unit.producer.folded()
    expected = []
    for j, coefficients in zip(removed.tolist(), matrix, strict=True):
        row = torch.cat([weight[j], bias[j : j + 1]])
        left = row.clone()
        for k, s in zip(kept.tolist(), coefficients, strict=True):
            left -= s * torch.cat([weight[k], bias[k : k + 1]])
        expected.append((left.norm() / row.norm()).item())
    found = reconstruction_error(unit, kept, removed, Delivery(matrix))
    assert found.tolist() == pytest.approx(expected)


def test_an_offset_counts_as_bias():
    unit = make_unit(n=3, norm=False, bias=True, activation=IDENTITY)
    unit.producer.weight[2] = unit.producer.weight[0]
    offset = (unit.producer.bias[2] - unit.producer.bias[0])[None]
    given = Delivery(torch.tensor([[1.0, 0.0]], dtype=torch.float64), offset)
    found = reconstruction_error(unit, index(0, 1), index(2), given)
    assert found.tolist() == pytest.approx([0.0], abs=1e-12)


def test_a_constant_channel_counts_by_its_value_behind_the_activation():
    unit = make_unit(n=4, activation=GELU)
    unit.producer.norm.gamma[[2, 3]] = 0
    unit.producer.norm.beta[3] = 0  # GELU(0) = 0: nothing to hand on
    nothing = Delivery(torch.zeros(2, 2, dtype=torch.float64))
    found = reconstruction_error(unit, index(0, 1), index(2, 3), nothing)
    assert found.tolist() == pytest.approx([1.0, 0.0])
    value = GELU.apply(unit.producer.norm.beta[[2, 3]])
    found = reconstruction_error(unit, index(0, 1), index(2, 3), replace(nothing, offset=value))
    assert found.tolist() == pytest.approx([0.0, 0.0])


def shrink_in_half(restorer, change):
    """Half of the hidden units leave a small network in half precision, whose weights are large."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).half().eval()
    with torch.no_grad():
        model[2].weight.fill_(5e4)
        change(model[0])
    first = PlantedFirst({"0": (4, 5, 6, 7)})
    x = torch.zeros(1, 4).half()
    return bequest.prune(model, x, {"0": 0.5}, criterion=first, restorer=restorer, round_to=1)


@pytest.mark.parametrize("restorer", ["merge", "lbyl", "sum"])
def test_weights_that_outgrow_half_precision_are_refused_by_name(restorer):
    def repeat(layer):
        layer.weight[4:], layer.bias[4:] = layer.weight[:4], layer.bias[:4]

    with pytest.raises(ModelError, match=r"'2.weight' to fit into float16, .*1e\+05.*model.float"):
        shrink_in_half(restorer, repeat)


def test_biases_that_outgrow_half_precision_are_refused_by_name():
    def hold(layer):
        layer.weight[4:], layer.bias[4:] = 0.0, 3.0

    with pytest.raises(ModelError, match=r"'2.bias' to fit into float16, .*model.float"):
        shrink_in_half("lbyl", hold)


def test_a_weight_is_cut_before_the_next_is_written(monkeypatch):
    layers = [layer for _ in range(4) for layer in (nn.Linear(16, 16), nn.ReLU())]
    whole, hand_on = [], weight_space.hand_on

    def watched(bound, hand, tensors):
        whole.append(len(tensors))
        return hand_on(bound, hand, tensors)

    monkeypatch.setattr(weight_space, "hand_on", watched)
    bequest.prune(nn.Sequential(*layers), torch.zeros(1, 16), 0.5, restorer="lbyl")
    assert whole == [8, 7, 6]

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from bequest.restorers import LBYL, Merge
from bequest.restorers.exact import constants, hand_on_exactly, multiples
from tests.restorers.units import GELU, IDENTITY, RELU, SIGMOID, assert_exact, make_unit


def index(*channels):
    return torch.tensor(channels, dtype=torch.int64)


def plant_multiple(unit, source, target, factor):
    """Makes target compute factor × what source computes before the activation."""
    producer = unit.producer
    producer.weight[target] = producer.weight[source]
    if producer.norm is None:
        producer.weight[target] *= factor
        if producer.bias is not None:
            producer.bias[target] = factor * producer.bias[source]
        return
    for values in (producer.norm.mean, producer.norm.var):
        values[target] = values[source]
    if producer.bias is not None:
        producer.bias[target] = producer.bias[source]
    producer.norm.gamma[target] = factor * producer.norm.gamma[source]
    producer.norm.beta[target] = factor * producer.norm.beta[source]


@settings(max_examples=40, deadline=None)
@given(
    norm=st.booleans(),
    bias=st.booleans(),
    kind=st.sampled_from(["conv", "linear"]),
    activation=st.sampled_from([RELU, GELU, SIGMOID, IDENTITY]),
    wide=st.booleans(),
    factor=st.floats(0.01, 100),
    seed=st.integers(0, 1000),
)
def test_lbyl_by_default_hands_duplicates_and_multiples_on_exactly(
    norm, bias, kind, activation, wide, factor, seed
):
    # Also with more kept filters than dimensions, where a ridge would spread them over all.
    unit = make_unit(
        n=12, d=5 if wide else 30, kind=kind, norm=norm, bias=bias, activation=activation,
        seed=seed, consumers=((4, 1), (3, 2)),
    )  # fmt: skip
    factor = factor if activation.homogeneous else 1.0
    plant_multiple(unit, source=1, target=10, factor=factor)
    plant_multiple(unit, source=4, target=11, factor=1.0)
    given = LBYL().deliver(unit, torch.arange(10), index(10, 11), seed=0)
    assert_exact(unit, torch.arange(10), index(10, 11), given)
    assert given.offset is None
    if activation is not IDENTITY:
        assert given.matrix.count_nonzero() == 2


def test_a_multiple_is_not_merged_where_the_activation_bends_it():
    unit = make_unit(n=4, norm=False, activation=GELU)
    plant_multiple(unit, source=0, target=3, factor=2.0)
    partner, _ = multiples(unit, index(0, 1, 2), index(3))
    assert partner.tolist() == [-1]


def test_a_negative_multiple_is_not_merged():
    unit = make_unit(n=4, norm=False)
    plant_multiple(unit, source=0, target=3, factor=-1.0)
    partner, _ = multiples(unit, index(0, 1, 2), index(3))
    assert partner.tolist() == [-1]


@pytest.mark.parametrize(("gap", "found"), [(1e-7, True), (1e-5, False)])
@pytest.mark.parametrize("activation", [RELU, SIGMOID])
def test_sameness_is_judged_at_float32_precision(gap, found, activation):
    unit = make_unit(n=4, norm=False, activation=activation)
    plant_multiple(unit, source=0, target=3, factor=1.0)
    unit.producer.weight[3, 0] += gap * unit.producer.weight[3].norm()
    partner, _ = multiples(unit, index(0, 1, 2), index(3))
    assert (partner.tolist() == [0]) is found


def test_a_large_bias_does_not_hide_that_filters_differ():
    unit = make_unit(n=3, norm=False, bias=True)
    unit.producer.bias.fill_(1e9)
    partner, _ = multiples(unit, index(0, 1), index(2))
    assert partner.tolist() == [-1]


def test_constants_are_zero_filters_and_dead_norms():
    unit = make_unit(n=6)
    norm = unit.producer.norm
    unit.producer.weight[1] = 0
    norm.gamma[2] = 5e-5
    norm.var[3] = 5e-7
    constant, value = constants(unit)
    assert constant.tolist() == [False, True, True, True, False, False]
    folded = unit.producer.folded()[1]
    expected = torch.stack([folded[1], norm.beta[2], norm.beta[3]]).clamp(min=0)
    torch.testing.assert_close(value[1:4], expected)


def test_a_unit_whose_norms_are_all_small_is_not_dead():
    unit = make_unit(n=6)
    unit.producer.norm.gamma.mul_(1e-6)
    unit.producer.norm.var.mul_(1e-8)
    assert not constants(unit)[0].any()


def test_a_unit_of_zero_filters_is_constant_throughout():
    unit = make_unit(n=3, norm=False, bias=True)
    unit.producer.weight.zero_()
    assert constants(unit)[0].all()


def make_constant(unit, channel, value):
    """A filter of zeros whose bias, behind the norm, is value."""
    producer = unit.producer
    producer.weight[channel] = 0
    if producer.norm is not None:
        producer.norm.mean[channel] = 0 if producer.bias is None else producer.bias[channel]
        producer.norm.beta[channel] = value
    else:
        producer.bias[channel] = value


@pytest.mark.parametrize("restorer", [LBYL(), LBYL(1e-3, 1e-2), LBYL(0.0, 0.0), Merge()])
@pytest.mark.parametrize("activation", [RELU, GELU, SIGMOID, IDENTITY])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("carrier", [True, False])
def test_constant_channels_are_exact(restorer, activation, norm, carrier):
    unit = make_unit(n=8, norm=norm, bias=True, activation=activation)
    make_constant(unit, 6, 1.3)
    make_constant(unit, 7, -0.4)
    if carrier:
        make_constant(unit, 2, 0.9)
    given = restorer.deliver(unit, torch.arange(6), index(6, 7), seed=0)
    assert_exact(unit, torch.arange(6), index(6, 7), given)
    assert (given.offset is None) is carrier
    assert given.notes == ()


def test_the_kept_constant_of_largest_value_carries():
    unit = make_unit(n=5, norm=False, bias=True)
    for channel, value in enumerate([0.2, 0.8, 0.5]):
        make_constant(unit, channel, value)
    make_constant(unit, 4, 0.4)
    exact = hand_on_exactly(unit, torch.arange(4), index(4), repeats=False)
    assert exact.matrix.tolist() == [[0.0, 0.5, 0.0, 0.0]]
    assert exact.offset.tolist() == [0.0]


def test_a_constant_too_small_to_carry_does_not():
    unit = make_unit(n=3, norm=False, bias=True)
    make_constant(unit, 0, 1e-5)
    make_constant(unit, 2, 1.0)
    exact = hand_on_exactly(unit, index(0, 1), index(2), repeats=False)
    assert not exact.matrix.any()
    assert exact.offset.tolist() == [1.0]


@pytest.mark.parametrize("carrier", [True, False])
def test_at_a_zero_padded_border_only_a_carried_constant_is_exact(carrier):
    def images(weights, maps, padding):
        return conv2d(maps, weights, padding=padding)

    unit = make_unit(n=5, d=2 * 9, padded=True, consumers=((3, 9),))
    make_constant(unit, 4, 0.7)
    if carrier:
        make_constant(unit, 1, 0.3)
    kept, removed = torch.arange(4), index(4)
    given = LBYL().deliver(unit, kept, removed, seed=0)

    weight, bias = unit.producer.folded()
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    hidden = torch.relu(images(weight.view(5, 2, 3, 3), x, 1) + bias[:, None, None])
    reader = unit.consumers[0].weight
    dense = images(reader.view(3, 5, 3, 3), hidden, 1)
    new = reader[:, kept] + torch.einsum("ojq,jk->okq", reader[:, removed], given.matrix)
    pruned = images(new.view(3, 4, 3, 3), hidden[:, kept], 1)
    if given.offset is not None:
        pruned += (reader[:, removed].sum(dim=2) @ given.offset)[:, None, None]

    inside = (pruned - dense)[..., 1:-1, 1:-1].abs().max()
    everywhere = (pruned - dense).abs().max()
    assert inside < 1e-10
    assert bool(everywhere < 1e-10) is carrier
    assert bool(given.notes) is not carrier
    if not carrier:
        assert "zeros at its border" in given.notes[0]
        assert "unit.consumer0" in given.notes[0]


@pytest.mark.parametrize("norm", [True, False])
def test_several_consumers_all_get_the_offset(norm):
    unit = make_unit(n=5, norm=norm, bias=True, consumers=((3, 1), (4, 2)))
    make_constant(unit, 4, 0.7)
    given = LBYL().deliver(unit, torch.arange(4), index(4), seed=0)
    assert given.offset is not None
    assert_exact(unit, torch.arange(4), index(4), given)


@settings(max_examples=30, deadline=None)
@given(
    norm=st.booleans(), bias=st.booleans(), padded=st.booleans(),
    d=st.sampled_from([4, 30]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_without_activation_dependent_channels_are_exact(norm, bias, padded, d, seed):
    # With d = 4 the kept filters are dependent themselves, so every channel is.
    unit = make_unit(n=9, d=d, norm=norm, bias=bias, activation=IDENTITY, seed=seed, padded=padded)
    producer = unit.producer
    mixed = torch.randn(2, 7, dtype=torch.float64) @ producer.folded()[0][:7]
    if norm:  # so that they depend once the norm is folded in
        mixed /= (producer.norm.gamma / producer.norm.sigma)[7:, None]
    producer.weight[7:] = mixed
    given = LBYL().deliver(unit, torch.arange(7), index(7, 8), seed=0)
    assert_exact(unit, torch.arange(7), index(7, 8), given)
    assert bool(given.notes) is (padded and given.offset is not None)


def test_without_activation_spare_freedom_of_the_filters_gets_the_bias_right():
    # 7 kept filters in 4 dimensions: an exact combination of filter and bias exists, so that
    # no offset is needed and a zero-padded border is exact, too.
    unit = make_unit(n=9, d=4, norm=False, bias=True, activation=IDENTITY, padded=True)
    given = LBYL().deliver(unit, torch.arange(7), index(7, 8), seed=0)
    assert given.offset is None
    assert_exact(unit, torch.arange(7), index(7, 8), given)

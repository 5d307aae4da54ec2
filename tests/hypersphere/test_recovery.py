import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bequest
from bequest.errors import ModelError, UsageError
from bequest.hypersphere import Recovered, convert, deconvert, prune, recover
from tests.hypersphere.networks import LAYERS, Net, layer_and_input

SCOPES = ["filter", "layer", "signed"]


def naive(weight, kept, scope):
    """The weight with means in the pruned places, one place at a time."""
    filled = weight.clone()
    for row in range(len(weight)):
        for place in map(tuple, (~kept[row]).nonzero().tolist()):
            if scope == "layer":
                alike = weight[~kept]
            elif scope == "filter":
                alike = weight[row][~kept[row]]
            else:
                side = (weight[row] > 0) == (weight[row][place] > 0)
                alike = weight[row][~kept[row] & side]
            filled[row][place] = alike.mean()
    return filled


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", LAYERS)
def test_the_recovered_layer_has_means_in_the_pruned_places(name, scope):
    layer, x = layer_and_input(name)
    pruned = prune(layer, 0.5)
    kept = pruned.weight != 0
    recovered = recover(pruned, scope)
    expected = naive(layer.weight.detach(), kept, scope)
    torch.testing.assert_close(recovered.weight, expected, rtol=1e-12, atol=1e-12)
    reference = copy.deepcopy(layer)
    with torch.no_grad():
        reference.weight.copy_(expected)
    torch.testing.assert_close(recovered(x), reference(x), rtol=1e-11, atol=1e-11)
    assert ((recovered.sparse != 0) == kept).all()


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 20),
    sparsity=st.floats(0, 0.95),
    shift=st.floats(-2, 2),
    mask=st.sampled_from(["layer", "filter", "global", "whole-filter"]),
)
def test_means_never_raise_the_error_of_the_weights(rows, columns, sparsity, shift, mask):
    layer = nn.Linear(columns, rows).double()
    with torch.no_grad():
        layer.weight.normal_().add_(shift)
    pruned = prune(layer, sparsity, mask=mask)

    def error(module):
        return float((module.weight - layer.weight).square().sum().detach())

    zeroed = error(pruned)
    by_layer, by_filter, by_sign = (
        error(recover(pruned, scope)) for scope in ("layer", "filter", "signed")
    )
    slack = 1e-12 * (1 + zeroed)
    assert by_sign <= by_filter + slack
    assert by_filter <= by_layer + slack
    assert by_layer <= zeroed + slack


@pytest.mark.parametrize("scope", ["filter", "signed"])
def test_the_mean_output_is_restored_for_inputs_of_one_mean(scope):
    layer = nn.Linear(40, 6).double()
    with torch.no_grad():
        layer.weight.add_(0.1)
    x = torch.full((40,), 0.7, dtype=torch.float64)  # the output is affine: E[y] = y(E[x])
    pruned = prune(layer, 0.6)
    assert (pruned(x) - layer(x)).abs().min() > 0.01
    torch.testing.assert_close(recover(pruned, scope)(x), layer(x), rtol=0, atol=1e-12)


def test_the_layer_mean_restores_the_sum_over_the_filters():
    layer = nn.Linear(40, 6).double()
    x = torch.full((40,), 0.7, dtype=torch.float64)
    recovered = recover(prune(layer, 0.6), "layer")
    torch.testing.assert_close(recovered(x).sum(), layer(x).sum(), rtol=0, atol=1e-11)


def test_means_help_where_inputs_have_one():
    """The experiment of the method's description: zeroed, then per filter, then signed."""
    layer = nn.Linear(200, 50).double()
    x = torch.randn(500, 200, dtype=torch.float64).relu()
    pruned = prune(layer, 0.5, mask="filter")

    def mse(module):
        return float((module(x) - layer(x)).square().mean().detach())

    assert mse(recover(pruned, "signed")) < mse(recover(pruned)) < mse(pruned)


@pytest.mark.parametrize("mask", ["layer", "filter", "global", "2:4", "whole-filter", "spectrum"])
def test_the_given_network_is_untouched(mask):
    model = convert(Net().eval())
    state = copy.deepcopy(model.state_dict())
    pruned = prune(model, 0.5, mask=mask, skip=["first"])
    assert not pruned.training
    assert torch.equal(pruned.first.weight, deconvert(model).first.weight)
    assert (pruned.second.weight == 0).any()
    if mask != "spectrum":
        again = copy.deepcopy(pruned.state_dict())
        recover(pruned)
        assert all(torch.equal(pruned.state_dict()[key], value) for key, value in again.items())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_a_hyperspherical_network_and_its_plain_one_lose_the_same_weights():
    model = Net().double()
    first, second = prune(model, 0.5), prune(convert(model), 0.5)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_no_sparsity_changes_nothing():
    model = Net().eval()
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(prune(model, 0.0)(x), model(x))
    torch.testing.assert_close(recover(prune(model, 0.0))(x), model(x))


def test_a_recovered_network_can_be_pruned_again():
    model = Net().eval()
    again = prune(recover(prune(model, 0.5)), 0.5)
    assert (again.second.weight == 0).double().mean() == 0.5
    assert isinstance(recover(again).second, Recovered)


def test_a_state_dict_carries_what_recover_needs():
    model = Net().eval()
    pruned, other = prune(model, 0.5), prune(Net().eval(), 0.5)
    other.load_state_dict(pruned.state_dict())
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(recover(other, "signed")(x), recover(pruned, "signed")(x))


def test_a_recovered_network_can_be_trained_and_exported():
    recovered = recover(prune(Net(), 0.5), "signed").eval()
    x = torch.randn(2, 3, 6, 6)
    exported = torch.export.export(recovered, (x,)).module()
    torch.testing.assert_close(exported(x), recovered(x))
    recovered(x).sum().backward()
    assert recovered.second.constant.grad.abs().sum() > 0


@pytest.mark.parametrize("restorer", ["none", "lbyl", "regression"])
def test_whole_filters_are_those_that_the_surgery_takes(restorer):
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1),
    ).eval()
    model = convert(plain)
    zeroed = prune(model, 0.5, mask="whole-filter", skip=["3"])
    gone = (zeroed[0].weight.flatten(1) == 0).all(dim=1).nonzero().flatten().tolist()
    shrunk = bequest.prune(
        deconvert(model),
        torch.randn(1, 3, 6, 6),
        0.5,
        criterion="l2",
        restorer=restorer,
        round_to=1,
        progress=False,
    )
    assert shrunk.plan.groups[0].removed == tuple(gone)
    assert shrunk.model[0].weight.shape == (4, 3, 3, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: prune(Net(), 1.5), UsageError, "sparsity"),
        (lambda: prune(Net(), float("nan")), UsageError, "sparsity"),
        (lambda: prune(nn.ReLU(), 0.5), ModelError, "no layer that can be pruned"),
        (lambda: prune(Net(), 0.5, mask="row"), UsageError, "mask: expected layer"),
        (lambda: prune(Net(), 0.5, mask="2:4"), UsageError, r"'first' has 3 inputs .*skip"),
        (lambda: recover(Net()), UsageError, "recover: expected a module that .*prune returned"),
        (lambda: recover(prune(Net(), 0.5), "row"), UsageError, "scope: expected one of filter"),
        (lambda: recover(prune(Net(), 0.5, mask="spectrum")), UsageError, "recover: expected"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_weights_that_are_not_finite_are_refused():
    model = Net()
    with torch.no_grad():
        model.second.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match="'second' has NaN or infinite weights"):
        prune(model, 0.5)

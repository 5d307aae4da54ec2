import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bequest.errors import UsageError
from bequest.hypersphere.geometry import unit
from bequest.hypersphere.masks import make_masks, pruned_count


@pytest.fixture
def weights():
    return {
        "a": torch.randn(6, 8, 3, 3, dtype=torch.float64),
        "b": 100 * torch.randn(5, 12, dtype=torch.float64),
    }


@settings(max_examples=40, deadline=None)
@given(
    sparsity=st.floats(0, 0.99),
    rows=st.integers(1, 7),
    columns=st.integers(1, 30),
    mask=st.sampled_from(["layer", "filter", "global", "whole-filter"]),
    coarse=st.booleans(),
)
def test_exactly_as_many_leave_as_asked_for(sparsity, rows, columns, mask, coarse):
    weight = torch.randn(rows, columns)
    if coarse:
        weight = weight.round()  # many equal values, many zeros
    kept = make_masks({"one": weight}, sparsity, mask)["one"]
    if mask == "filter":
        assert (~kept).sum(dim=1).tolist() == [pruned_count(columns, sparsity)] * rows
    elif mask == "whole-filter":
        assert kept.all(dim=1).sum() == rows - pruned_count(rows, sparsity)
        assert (kept.all(dim=1) == kept.any(dim=1)).all()
    else:
        assert (~kept).sum() == pruned_count(rows * columns, sparsity)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_the_largest_directions_stay(weights, sparsity):
    sizes = {name: unit(weight).abs() for name, weight in weights.items()}
    masks = make_masks(weights, sparsity, "layer")
    for name, kept in masks.items():
        if (~kept).any():
            assert sizes[name][~kept].max() <= sizes[name][kept].min()
    masks = make_masks(weights, sparsity, "global")
    gone = [sizes[name][~kept] for name, kept in masks.items()]
    stay = [sizes[name][kept] for name, kept in masks.items()]
    if sum(map(len, gone)):
        assert torch.cat(gone).max() <= torch.cat(stay).min()


def test_scale_of_a_filter_does_not_matter(weights):
    scaled = {name: weight * torch.tensor(7.0) for name, weight in weights.items()}
    for mask in ("layer", "filter", "global"):
        first, second = (make_masks(w, 0.5, mask) for w in (weights, scaled))
        assert all(torch.equal(first[name], second[name]) for name in weights)


def test_of_every_m_inputs_n_stay(weights):
    for mask, n, m in (("2:4", 2, 4), ("1:4", 1, 4)):
        kept = make_masks(weights, 1 - n / m, mask)
        convolution = kept["a"].permute(0, 2, 3, 1).reshape(-1, m)
        assert (convolution.sum(dim=1) == n).all()
        assert (kept["b"].reshape(-1, m).sum(dim=1) == n).all()
    four = weights["b"][0, :4].abs()
    assert set(four.topk(2).indices.tolist()) == set(
        make_masks(weights, 0.5, "2:4")["b"][0, :4].nonzero().flatten().tolist()
    )


@pytest.mark.parametrize(
    ("mask", "sparsity", "message"),
    [
        ("rows", 0.5, "expected layer, filter, global, whole-filter, spectrum or N:M"),
        ("4:4", 0.5, "1 <= N < M"),
        ("2:4", 0.7, "a 2:4 mask prunes 0.5 of the weights, found 0.7"),
        ("2:5", 0.6, "'a' has 8 inputs per filter, which is no multiple of 5"),
    ],
)
def test_masks_that_do_not_fit_are_refused(weights, mask, sparsity, message):
    with pytest.raises(UsageError, match=message):
        make_masks(weights, sparsity, mask)

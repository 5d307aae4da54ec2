import pytest
import torch
from torch import nn

from bequest.errors import UsageError
from bequest.hypersphere import prune, recover, spectral_report
from bequest.hypersphere.masks import pruned_count
from bequest.hypersphere.spectrum import preserving
from tests.hypersphere.networks import Net


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("largest", [0.0, 0.5, 1.0])
def test_exactly_as_many_stay_and_the_largest_as_they_are(sparsity, largest):
    weight = torch.randn(8, 4, 3, 3)
    sparse = preserving(weight, sparsity, largest=largest)
    stay = weight.numel() - pruned_count(weight.numel(), sparsity)
    assert sparse.count_nonzero() == stay
    top = weight.flatten().abs().topk(round(largest * stay)).indices
    assert torch.equal(sparse.flatten()[top], weight.flatten()[top])


def test_the_expected_matrix_is_the_weight():
    weight = torch.randn(4, 6, dtype=torch.float64)
    draws = torch.stack([preserving(weight, 0.5, seed=seed) for seed in range(4000)])
    spread = draws.std(dim=0) / 4000**0.5
    assert ((draws.mean(dim=0) - weight).abs() <= 5 * spread + 1e-12).all()


def test_zeros_are_not_drawn_and_a_seed_is_a_draw():
    weight = torch.randn(5, 20)
    weight[:, 10:] = 0
    state = torch.get_rng_state()
    first, again, other = (preserving(weight, 0.6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first[:, 10:] == 0).all()
    assert torch.equal(preserving(weight, 0.5), weight)  # as many stay as are not zero


def test_the_report_is_its_definition():
    layer = nn.Linear(6, 4).double()
    pruned = prune(layer, 0.5)
    (found,) = spectral_report(layer, pruned)
    W, B = layer.weight.detach(), pruned.weight.detach()
    largest = torch.linalg.svdvals(W)[0]
    assert found.error == pytest.approx(float(torch.linalg.svdvals(W - B)[0] / largest))
    shift = (torch.linalg.svdvals(W) - torch.linalg.svdvals(B)).abs().max() / largest
    assert found.shift == pytest.approx(float(shift))
    assert found.shift <= found.error + 1e-12  # Weyl's inequality


def test_the_report_names_the_layers_that_changed():
    model = Net()
    pruned = prune(model, 0.5, skip=["first"])
    assert [one.layer for one in spectral_report(model, pruned)] == ["second", "head"]
    assert [one.layer for one in spectral_report(model, recover(pruned))] == ["second", "head"]
    with pytest.raises(UsageError, match="expected 'first' in both networks"):
        spectral_report(model, nn.Linear(3, 3))

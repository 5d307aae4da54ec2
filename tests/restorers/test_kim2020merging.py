import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bequest.errors import UsageError
from bequest.restorers import Merge
from tests.restorers.units import halves, make_unit


def cosine(a, b):
    return (a @ b / (a.norm() * b.norm())).item()


def merged_linear(unit, kept, j, threshold):
    """The paper's choice for neuron j of a linear layer: position among kept, scale."""
    bias = unit.producer.bias
    row = torch.cat([unit.producer.weight, bias[:, None]], dim=1)
    best = max(range(len(kept)), key=lambda k: cosine(row[j], row[kept[k]]))
    if cosine(row[j], row[kept[best]]) < threshold:
        return None
    return best, (row[j].norm() / row[kept[best]].norm()).item()


def merged_filter(unit, kept, j, threshold, weight, official=False):
    """The paper's choice for filter j with a batch norm, candidate by candidate."""
    w, norm = unit.producer.weight, unit.producer.norm
    gamma, beta, mean = norm.gamma, norm.beta, norm.mean
    sigma = norm.var if official else norm.sigma
    scales, gaps = [], []
    for k in kept.tolist():
        scale = w[j].norm() / w[k].norm()
        if official:
            scale = scale * (gamma[k] / gamma[j]) * (sigma[j] / sigma[k])
        else:
            scale = scale * (gamma[j] / gamma[k]) * (sigma[k] / sigma[j])
        bias_j = beta[j] - gamma[j] * mean[j] / sigma[j]
        bias_k = beta[k] - gamma[k] * mean[k] / sigma[k]
        if official:  # kept and removed have changed places
            gap = (bias_k - scale * bias_j).abs() / scale
        else:
            gap = (bias_j - scale * bias_k).abs()
        scales.append(scale.item())
        gaps.append(gap.item())
    low, high = min(gaps), max(gaps)
    spread = [(g - low) / (high - low) if high > low else 0.0 for g in gaps]
    score = [
        weight * (1 - cosine(w[j], w[k])) + (1 - weight) * s
        for k, s in zip(kept.tolist(), spread, strict=True)
    ]
    best = score.index(min(score))
    if cosine(w[j], w[kept[best]]) < threshold:
        return None
    return best, scales[best]


def assert_rows(matrix, choices):
    for row, choice in zip(matrix, choices, strict=True):
        expected = torch.zeros_like(row)
        if choice is not None:
            expected[choice[0]] = choice[1]
        torch.testing.assert_close(row, expected)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 12), threshold=st.sampled_from([None, -1.0, 0.2]), seed=st.integers(0, 99))
def test_linear_layers_merge_into_the_most_similar_row(n, threshold, seed):
    unit = make_unit(n=n, d=4, kind="linear", norm=False, bias=True, seed=seed)
    kept, removed = halves(n, (n + 1) // 2)
    matrix = Merge(threshold).deliver(unit, kept, removed, seed=0).matrix
    expected = 0.45 if threshold is None else threshold
    assert_rows(matrix, [merged_linear(unit, kept, j, expected) for j in removed.tolist()])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 12),
    threshold=st.sampled_from([None, -1.0, 0.3]),
    weight=st.sampled_from([0.0, 0.5, 0.85, 1.0]),
    official=st.booleans(),
    seed=st.integers(0, 99),
)
def test_filters_with_batch_norm_weigh_direction_against_bias(n, threshold, weight, official, seed):
    unit = make_unit(n=n, d=5, seed=seed)
    unit.producer.norm.gamma[0] *= -1
    kept, removed = halves(n, (n + 1) // 2)
    config = Merge(threshold, weight, "official" if official else None)
    matrix = config.deliver(unit, kept, removed, seed=0).matrix
    least = 0.1 if threshold is None else threshold
    choices = [merged_filter(unit, kept, j, least, weight, official) for j in removed.tolist()]
    assert_rows(matrix, choices)


@pytest.mark.parametrize("compat", [None, "official"])
def test_a_convolution_without_batch_norm_compares_its_own_biases(compat):
    unit, (kept, removed) = make_unit(n=10, norm=False, bias=True), halves(10, 6)
    with_norm = make_unit(n=10)
    with_norm.producer.weight.copy_(unit.producer.weight)
    for field, value in {"gamma": 1.0, "mean": 0.0, "var": 1.0}.items():
        getattr(with_norm.producer.norm, field).fill_(value)
    with_norm.producer.norm.beta.copy_(unit.producer.bias)
    config = Merge(-1.0, compat=compat)
    torch.testing.assert_close(
        config.deliver(unit, kept, removed, seed=0).matrix,
        config.deliver(with_norm, kept, removed, seed=0).matrix,
        rtol=1e-4, atol=1e-6,  # the norm's eps
    )  # fmt: skip


def test_dead_kept_channels_take_nothing_up_but_constants():
    unit = make_unit(n=6)
    unit.producer.norm.gamma[0] = 1e-9
    unit.producer.norm.beta[0] = 2.0
    unit.producer.weight[4] = unit.producer.weight[0]  # most similar to the dead one
    unit.producer.norm.gamma[5] = 1e-9
    unit.producer.norm.beta[5] = 1.0
    given = Merge(-1.0).deliver(unit, torch.arange(4), torch.tensor([4, 5]), seed=0)
    assert given.matrix[0, 0] == 0
    assert given.matrix[1].tolist() == pytest.approx([0.5, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("dead", ["gamma", "var"])
def test_official_keeps_dead_channels_finite_and_notes_them(dead):
    unit = make_unit(n=8)
    getattr(unit.producer.norm, dead)[[1, 6]] = 0
    unit.producer.weight[2] = 0
    given = Merge(-1.0, compat="official").deliver(
        unit, torch.arange(4), torch.arange(4, 8), seed=0
    )
    assert given.matrix.isfinite().all()
    assert given.notes[0].startswith("2 channels")


@pytest.mark.parametrize(
    "fields",
    [{"threshold": 1.5}, {"weight": -0.1}, {"weight": float("nan")}, {"compat": "offical"}],
)
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        Merge(**fields)

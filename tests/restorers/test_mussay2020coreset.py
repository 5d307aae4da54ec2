import pytest
import torch

from bequest.criteria import Coreset as Criterion
from bequest.criteria.mussay2020coreset import sensitivity
from bequest.errors import UsageError
from bequest.restorers import Coreset
from tests.restorers.units import make_unit


def sampled(unit, p, seed):
    """The p channels that the criterion meets first, and the others."""
    order = Criterion().score(unit, seed).argsort(descending=True)
    return order[:p].sort().values, order[p:].sort().values


def gains(unit, kept, removed, seed):
    return Coreset().deliver(unit, kept, removed, seed).gain


def literal(probability, p, runs):
    """Sampling with replacement until p distinct channels are there: (channels, gains) per run."""
    g = torch.Generator().manual_seed(11)
    found = []
    for draws in torch.multinomial(
        probability.expand(runs, -1), 500, replacement=True, generator=g
    ).tolist():
        distinct = dict[int, int]()
        count = 0
        for j in draws:
            distinct[j] = distinct.get(j, 0) + 1
            count += 1
            if len(distinct) == p:
                break
        found.append({j: c / (probability[j].item() * count) for j, c in distinct.items()})
    return found


def test_counts_have_the_law_of_literal_sampling():
    unit, runs = make_unit(n=5), 4_000
    probability = sensitivity("coreset", unit, 1.0)
    reference = literal(probability, 3, runs)
    found = []
    for seed in range(runs):
        kept, removed = sampled(unit, 3, seed)
        gain = gains(unit, kept, removed, seed)
        found.append(dict(zip(kept.tolist(), gain.tolist(), strict=True)))
    for channel in range(5):
        for moment in (1, 2):
            ours, theirs = (
                torch.tensor([run.get(channel, 0.0) ** moment for run in sample])
                for sample in (found, reference)
            )
            error = ((ours.var() + theirs.var()) / runs).sqrt()
            assert (ours.mean() - theirs.mean()).abs() < 4 * error


def test_the_draws_add_up():
    # count_k = gain_k·q_k·draws: whole numbers, at least one of each, for one whole draws.
    unit = make_unit(n=20)
    kept, removed = sampled(unit, 12, seed=3)
    gain = gains(unit, kept, removed, 3)
    share = gain * sensitivity("coreset", unit, 1.0)[kept]
    assert share.sum().item() == pytest.approx(1.0)
    draws = next(
        m for m in range(12, 2_000)
        if (share * m - (share * m).round()).abs().max() < 1e-9 and (share * m).min() > 0.5
    )  # fmt: skip
    assert draws >= 12


def test_channels_kept_for_other_reasons_get_the_expected_weight():
    unit = make_unit(n=8)
    kept, removed = sampled(unit, 5, seed=0)
    others = torch.cat([kept[:4], removed[:1]]).sort().values
    rest = torch.tensor([j for j in range(8) if j not in others.tolist()])
    gain = gains(unit, others, rest, 0)
    probability = sensitivity("coreset", unit, 1.0)
    chance = 1 / gain
    draws = -torch.log1p(-chance) / probability[others]
    torch.testing.assert_close(draws, draws[:1].expand(5))  # one number of draws for all
    expected = 1 - (-probability * draws[0]).exp()
    assert expected.sum().item() == pytest.approx(5)  # that is expected to meet 5 channels


def test_unread_channels_neither_take_part_nor_break_anything():
    unit = make_unit(n=6)
    unit.consumers[0].weight[:, [1, 2, 3, 4]] = 0
    for kept in ([0, 1, 2], [1, 2, 5], [1, 2, 3]):
        removed = torch.tensor([j for j in range(6) if j not in kept])
        gain = gains(unit, torch.tensor(kept), removed, 0)
        assert gain.isfinite().all()
        assert (gain[torch.tensor([j in (1, 2, 3, 4) for j in kept])] == 1).all()


def test_channels_of_very_small_probability_end_the_sampling_all_the_same():
    unit = make_unit(n=6)
    unit.consumers[0].weight[:, 2:] *= 1e-12
    kept, removed = sampled(unit, 5, seed=0)
    gain = gains(unit, kept, removed, 0)
    assert gain.isfinite().all()
    heavy = gain[[kept.tolist().index(0), kept.tolist().index(1)]]
    torch.testing.assert_close(heavy, torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("beta", [0.0, float("nan")])
def test_beta_is_a_positive_number(beta):
    with pytest.raises(UsageError, match="beta"):
        Coreset(beta)

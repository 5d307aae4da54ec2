"""Folding, fusion and iterative feature merging, against loops over channels."""

from itertools import combinations

import pytest
import torch
from torch import nn

import bequest
from bequest.restorers import IFM, Folding, Fusion
from bequest.restorers.chen2024ifm import nearest_pairs
from bequest.restorers.theus2024fusion import transport
from bequest.restorers.wang2025folding import k_means

METHODS = [Folding(), Folding(repair=False), Fusion(), Fusion(importance=True), IFM()]


class Chain(nn.Module):
    """conv → batch norm → ReLU → conv, and a linear layer behind."""

    def __init__(self, width=10, bias=False, norm=True):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.second = nn.Conv2d(width, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.second(self.norm(self.first(x)).relu()).relu()
        return self.head(x.mean((2, 3)))


class Residual(nn.Module):
    """Two branches of a batch norm each are added to a stem, and read twice."""

    def __init__(self, width=8):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width)
        self.inner, self.inner_norm = nn.Conv2d(width, 6, 1), nn.BatchNorm2d(6)
        self.back, self.back_norm = nn.Conv2d(6, width, 1), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.stem_norm(self.stem(x)).relu()
        inner = self.inner_norm(self.inner(x)).relu()
        return self.head((x + self.back_norm(self.back(inner))).relu().mean((2, 3)))


class Depthwise(nn.Module):
    """Expansion, depthwise convolution, projection, a batch norm behind each."""

    def __init__(self, width=12):
        super().__init__()
        self.wide, self.wide_norm = nn.Conv2d(3, width, 1, bias=False), nn.BatchNorm2d(width)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.deep_norm = nn.BatchNorm2d(width)
        self.narrow = nn.Conv2d(width, 4, 1)

    def forward(self, x):
        x = self.wide_norm(self.wide(x)).clamp(0, 6)
        return self.narrow(self.deep_norm(self.deep(x)).clamp(0, 6)).mean((2, 3))


def made(model, seed=0):
    """In double precision, with batch norms that have seen something."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
                if "norm" in name and name.endswith(("weight", "running_var")):
                    tensor.abs_().add_(0.3)
    return model


def folded(conv, norm):
    """[w̃; b̃] with the batch norm folded in."""
    bias = torch.zeros(len(conv.weight)).double() if conv.bias is None else conv.bias
    weight = conv.weight.flatten(1)
    if isinstance(norm, nn.BatchNorm2d):
        slope = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight, bias = slope[:, None] * weight, norm.bias + slope * (bias - norm.running_mean)
    return torch.cat([weight, bias[:, None]], dim=1).detach()


def pruned(model, method, ratio=0.5, **options):
    example = torch.zeros(1, 3, 6, 6, dtype=torch.float64)
    return bequest.prune(
        model, example, ratio, restorer=method, round_to=1, progress=False, **options
    )


def clusters(method, rows, sides, p):
    """The clusters of a method, by brute force."""
    n = len(rows)
    if isinstance(method, IFM):
        held = [[j] for j in range(n)]
        while len(held) > p:
            unit = [nn.functional.normalize(rows[c].mean(0), dim=0) for c in held]
            i, j = min(
                combinations(range(len(held)), 2), key=lambda ij: -float(unit[ij[0]] @ unit[ij[1]])
            )
            held[i] = held[i] + held.pop(j)
        return sorted(sorted(c) for c in held)
    both = torch.cat([rows, sides], dim=1)
    labels = k_means(both @ both.T, p, method.runs, torch.Generator().manual_seed(0))
    return [(labels == k).nonzero()[:, 0].tolist() for k in range(p)]


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("method", [Folding(repair=False), IFM()])
def test_clusters_are_means_and_sums(method, norm):
    model = made(Chain(bias=not norm, norm=norm))
    found = pruned(model, method, {"first": 0.6})
    rows = folded(model.first, model.norm)
    sides = model.second.weight.transpose(0, 1).flatten(1).detach()
    held = clusters(method, rows, sides, 4)

    torch.testing.assert_close(
        folded(found.model.first, found.model.norm), torch.stack([rows[c].mean(0) for c in held])
    )
    sums = torch.stack([model.second.weight[:, c].sum(1) for c in held], dim=1)
    torch.testing.assert_close(found.model.second.weight, sums)
    (group,) = found.report.groups
    assert group.restored_by == method.name
    assert group.reconstruction_error > 0


def test_repair_scales_what_varies():
    model = made(Chain())
    plain, repaired = (pruned(model, Folding(repair=r), {"first": 0.6}) for r in (False, True))
    rows = folded(model.first, model.norm)
    sides = model.second.weight.transpose(0, 1).flatten(1).detach()
    for k, c in enumerate(clusters(Folding(), rows, sides, 4)):
        pairs = [*combinations(c, 2)]
        cosines = [
            float(torch.cosine_similarity(rows[i, :-1], rows[j, :-1], dim=0)) for i, j in pairs
        ]
        rho = max(0.0, sum(cosines) / len(pairs)) if pairs else 0.0
        gain = (len(c) / (1 + (len(c) - 1) * rho)) ** 0.5
        beta = model.norm.bias[c].mean()
        before = folded(plain.model.first, plain.model.norm)[k]
        after = folded(repaired.model.first, repaired.model.norm)[k]
        torch.testing.assert_close(after[:-1], gain * before[:-1])
        torch.testing.assert_close(after[-1] - beta, gain * (before[-1] - beta))


def test_fusion_is_the_cheapest_plan():
    model = made(Chain())
    found = pruned(model, Fusion(), {"first": 0.6})
    rows = folded(model.first, model.norm)
    kept = sorted({*range(10)} - {*found.plan.groups[0].removed})
    cost = (rows[:, None] - rows[None, kept]).norm(dim=2)
    sent, received = (torch.full((k,), 1 / k, dtype=torch.float64) for k in (10, 4))
    plan = transport(cost, sent, received)
    torch.testing.assert_close(plan.sum(1), sent)
    torch.testing.assert_close(plan.sum(0), received)
    # No cycle of four entries makes it cheaper: a plan is optimal if no cycle does.
    for (i, j), (k, m) in ((a, b) for a in combinations(range(10), 2) for b in PAIRS_OF_FOUR):
        if min(plan[i, k], plan[j, m]) > 1e-9:
            assert cost[i, k] + cost[j, m] <= cost[i, m] + cost[j, k] + 1e-9
    new = torch.stack([(plan[:, [k]] * rows).sum(0) / plan[:, k].sum() for k in range(4)])
    torch.testing.assert_close(folded(found.model.first, found.model.norm), new)
    shares = plan / plan.sum(1, keepdim=True)
    torch.testing.assert_close(
        found.model.second.weight, torch.einsum("ojhw,jk->okhw", model.second.weight, shares)
    )


PAIRS_OF_FOUR = [(k, m) for k in range(4) for m in range(4) if k != m]


@pytest.mark.parametrize("method", [Folding(), Folding(repair=False), Fusion(), IFM()], ids=repr)
@pytest.mark.parametrize("network", [Chain, Residual, Depthwise])
def test_duplicates_cost_nothing(method, network):
    """Channel j + n/2 of every group repeats channel j, and l2 keeps one of each."""
    model = made(network())
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module is not getattr(model, "narrow", None):
                half = len(module.weight) // 2
                module.weight[half:] = module.weight[:half]
                if module.bias is not None:
                    module.bias[half:] = module.bias[:half]
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor[len(tensor) // 2 :] = tensor[: len(tensor) // 2]
        if isinstance(method, Folding):  # which looks at the readers, too
            for reader in (getattr(model, name, None) for name in READERS[network]):
                weight = reader.weight.transpose(0, 1)
                weight[len(weight) // 2 :] = weight[: len(weight) // 2]
    criterion = First()
    found = pruned(model, method, 0.5, groups="all", criterion=criterion)
    assert found.report.groups
    assert all(group.restored_by == method.name for group in found.report.groups)
    x = torch.randn(5, 3, 6, 6).double()
    torch.testing.assert_close(found.model(x), model(x), rtol=1e-6, atol=1e-6)


READERS = {
    Chain: ("second", "head"),
    Residual: ("inner", "back", "head"),
    Depthwise: ("narrow",),
}


class First(bequest.criteria.Random):
    """Keeps the first half."""

    def _scores(self, unit, seed):
        return -torch.arange(unit.size).double()


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("network", [Chain, Residual, Depthwise])
def test_every_group_is_merged_and_the_result_is_checked(method, network):
    model = made(network())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = pruned(model, method, 0.4, groups="all")
    assert {group.restored_by for group in found.report.groups} == {method.name}
    assert all(group.kept < group.size for group in found.report.groups)
    assert not found.report.notes
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert pruned(model, method, 0.0).report.groups == ()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_constant_channels_stay_constant(method):
    model = made(Chain())
    with torch.no_grad():
        model.norm.weight.zero_()
    found = pruned(model, method, {"first": 0.5}).model
    assert all(bool(tensor.isfinite().all()) for tensor in found.state_dict().values())


def test_what_has_numbers_for_each_channel_elsewhere_is_pruned_plainly():
    class Scaled(Chain):
        def __init__(self):
            super().__init__()
            self.activation = nn.PReLU(10)

        def forward(self, x):
            x = self.second(self.activation(self.norm(self.first(x)))).relu()
            return self.head(x.mean((2, 3)))

    (group,) = pruned(made(Scaled()), IFM(), {"first": 0.5}).report.groups
    assert group.restored_by == "none"
    assert group.notes == ("pruned plainly: 'activation.weight' holds a number for each channel",)


def test_k_means_finds_clusters_far_apart_and_leaves_none_empty():
    generator = torch.Generator().manual_seed(0)
    centres = 100 * torch.randn(5, 7, generator=generator).double()
    points = centres.repeat_interleave(6, 0) + torch.randn(30, 7, generator=generator).double()
    labels = k_means(points @ points.T, 5, 4, torch.Generator().manual_seed(1))
    assert labels.tolist() == [k for k in range(5) for _ in range(6)]
    alike = torch.ones(6, 2).double()
    labels = k_means(alike @ alike.T, 4, 1, torch.Generator().manual_seed(1))
    assert sorted({*labels.tolist()}) == [0, 1, 2, 3]


def test_k_means_is_as_good_as_that_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster", reason="needs scikit-learn")
    points = torch.randn(60, 9, generator=torch.Generator().manual_seed(3)).double()
    labels = k_means(points @ points.T, 20, 10, torch.Generator().manual_seed(0))
    ours = sum(
        float((points[labels == k] - points[labels == k].mean(0)).square().sum()) for k in range(20)
    )
    theirs = cluster.KMeans(20, n_init=10, random_state=0).fit(points.numpy()).inertia_
    assert ours <= 1.05 * theirs


def test_pairs_are_merged_as_one_looks_at_them():
    rows = torch.randn(14, 5, generator=torch.Generator().manual_seed(2)).double()
    labels = nearest_pairs(rows @ rows.T, 6)
    held = [(labels == k).nonzero()[:, 0].tolist() for k in range(6)]
    assert held == clusters(IFM(), rows, None, 6)

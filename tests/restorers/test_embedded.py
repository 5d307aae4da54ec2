"""Groups that no single layer tells: restorers in weight space go by what they say to noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest.graph import embedding
from tests.architectures.planting import PlantedFirst

N = 16


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, N), nn.Linear(8, N), nn.Linear(N, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))

    def copy_unit(self, source: int, target: int) -> None:
        for one in (self.gate, self.up):
            one.weight[target], one.bias[target] = one.weight[source], one.bias[source]


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 2 * N), nn.Linear(N, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.glu(self.up(x)))

    def copy_unit(self, source: int, target: int) -> None:
        for start in (0, N):
            for tensor in (self.up.weight, self.up.bias):
                tensor[start + target] = tensor[start + source]


class Inverted(nn.Module):
    """MobileNet's block: what a depthwise filter says of a channel counts."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.b = nn.Conv2d(4, N, 1), nn.BatchNorm2d(N)
        self.d, self.c = nn.Conv2d(N, N, 3, padding=1, groups=N), nn.BatchNorm2d(N)
        self.p = nn.Conv2d(N, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.p(F.relu6(self.c(self.d(F.relu6(self.b(self.e(x)))))))

    def copy_unit(self, source: int, target: int) -> None:
        for one in (self.e, self.b, self.d, self.c):
            for tensor in one.state_dict().values():
                if tensor.ndim:
                    tensor[target] = tensor[source]


class Squeezed(Inverted):
    def __init__(self) -> None:
        super().__init__()
        self.r, self.x = nn.Conv2d(N, 3, 1), nn.Conv2d(3, N, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.c(self.d(F.relu6(self.b(self.e(x))))))
        return self.p(y * self.x(F.relu(self.r(y.mean((2, 3), keepdim=True)))).sigmoid())

    def copy_unit(self, source: int, target: int) -> None:
        super().copy_unit(source, target)
        for tensor in (self.x.weight, self.x.bias):
            tensor[target] = tensor[source]


class Attends(nn.Module):
    """16 heads, one wide: each is what it says, whatever it attends to."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.MultiheadAttention(2 * N, N, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x, x, x, need_weights=False)[0]

    def copy_unit(self, source: int, target: int) -> None:
        for tensor in (self.a.in_proj_weight, self.a.in_proj_bias):
            heads = tensor.unflatten(0, (3, N, 2))
            heads[:, target] = heads[:, source]


class Pooled(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.c, self.o = nn.Conv2d(4, N, 3), nn.Linear(N, 8)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.c(x))
        if self.how == "tokens":
            return self.o(y.flatten(2).transpose(1, 2).sum(1))
        return self.o(y.sum((2, 3)) if self.how == "sum" else y.amax((2, 3)))

    def copy_unit(self, source: int, target: int) -> None:
        for tensor in (self.c.weight, self.c.bias):
            tensor[target] = tensor[source]


NETWORKS: dict[str, Any] = {
    "gated": (Gated, (5, 8), "gate"),
    "packed": (Packed, (5, 8), "up"),
    "inverted": (Inverted, (1, 4, 6, 6), "e"),
    "squeezed": (Squeezed, (1, 4, 6, 6), "e"),
    "heads": (Attends, (1, 5, 2 * N), "a.in_proj_weight"),
    "sum": (lambda: Pooled("sum"), (1, 4, 6, 6), "c"),
    "tokens": (lambda: Pooled("tokens"), (1, 4, 6, 6), "c"),
    "amax": (lambda: Pooled("amax"), (1, 4, 6, 6), "c"),
}


def made(name: str) -> tuple[Any, Tensor, str]:
    make, shape, layer = NETWORKS[name]
    torch.manual_seed(0)
    model = make().double().eval()
    for one in model.modules():
        if isinstance(one, nn.BatchNorm2d):
            nn.init.uniform_(one.running_var, 0.5, 2)
            nn.init.normal_(one.running_mean)
            nn.init.normal_(one.bias)
        elif isinstance(one, nn.MultiheadAttention):
            nn.init.normal_(one.in_proj_bias)
    return model, torch.randn(shape, dtype=torch.float64), layer


def output(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize(
    ("name", "restorer"),
    [*((name, "lbyl") for name in NETWORKS), ("gated", "merge"), ("inverted", "moments")],
)
def test_duplicates_are_handed_on_exactly(name, restorer):
    model, x, layer = made(name)
    pairs = {0: 3, 5: 4, 9: 15}  # leaves → stays
    with torch.no_grad():
        for leaves, stays in pairs.items():
            model.copy_unit(stays, leaves)
    pruned = bequest.prune(
        model,
        x,
        {layer: len(pairs) / N},
        criterion=PlantedFirst({layer: tuple(pairs)}),
        restorer=restorer,
        round_to=1,
        progress=False,
    )
    (group,) = pruned.plan.groups
    assert (group.removed, group.restored_by, group.notes) == (tuple(pairs), restorer, ())
    assert group.reconstruction_error < 1e-6
    wanted = output(model, x)
    torch.testing.assert_close(output(pruned.model, x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gated", "inverted", "heads", "sum"])
def test_what_others_say_makes_up_for_what_leaves(name):
    model, x, layer = made(name)
    state = torch.get_rng_state()
    many = torch.randn(256, *x.shape[1:], dtype=torch.float64)
    torch.set_rng_state(state)
    wanted, lost = output(model, many), {}
    for restorer in ("none", "lbyl"):
        settings = {"restorer": restorer, "round_to": 1, "progress": False}
        pruned = bequest.prune(model, x, {layer: 0.25}, **settings)
        found = output(pruned.model, many)
        lost[restorer] = float((found - wanted).norm() / (wanted - wanted.mean(0)).norm())
    assert lost["lbyl"] < 0.97 * lost["none"]
    assert torch.equal(torch.get_rng_state(), state)


def test_inspection_says_who_is_served(monkeypatch):
    model, x, _ = made("gated")
    (view, *_) = bequest.inspect(model, x).groups
    assert view.obstacle is None
    monkeypatch.setattr(embedding, "WIDEST", N - 1)
    (view, *_) = bequest.inspect(model, x).groups
    assert view.obstacle == f"no single layer tells its channels, and they are over {N - 1}"


class Streams(nn.Module):
    """What can't be embedded: a stream, and a grouped convolution behind a product."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.g = (
            nn.Conv2d(4, N, 1),
            nn.Conv2d(4, N, 1),
            nn.Conv2d(N, N, 1, groups=2),
        )
        self.i, self.j, self.o = nn.Conv2d(N, N, 1), nn.Conv2d(N, N, 1), nn.Conv2d(N, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.i(self.g(self.a(x) * self.b(x)))
        return self.o(y + self.j(F.relu(y)))


def test_others_are_pruned_plainly_and_say_why():
    torch.manual_seed(0)
    model, x = Streams().eval(), torch.randn(1, 4, 5, 5)
    pruned = bequest.prune(model, x, 0.5, groups="all", restorer="lbyl", progress=False)
    notes = {one.name: one.notes for one in pruned.plan.groups if one.restored_by == "none"}
    assert any("pruned plainly: a grouped convolution reads it" in note for note in notes["a"])
    assert any("a residual stream" in note for note in notes["i"])

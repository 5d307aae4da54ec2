"""Norms written out: a statistic over channels that scales or shifts these alone is a norm's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest import robust
from bequest.errors import NothingPrunedWarning
from bequest.graph.groups import Group, group
from bequest.graph.rules import read
from bequest.graph.trace import trace
from tests.graph.masking import plainly
from tests.networks import randomise

WIDTH = 12
Norm = Callable[[Tensor, "Net"], Tensor]


class Net(nn.Module):
    """A layer, a norm over its channels (the last dimension), and a layer that reads them."""

    def __init__(self, norm: Norm, width: int = WIDTH) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, width), nn.Linear(6, width)
        self.head = nn.Linear(width, 3)
        self.gamma, self.beta = (nn.Parameter(torch.rand(width) + 0.5) for _ in range(2))
        self.pixels = nn.Linear(1, 3)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return self.head(self.norm(self.first(x), self))


def rms(h: Tensor, m: Net) -> Tensor:
    """As Llama has it."""
    wide = h.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return m.gamma * wide.to(h.dtype)


def layer_norm(h: Tensor, m: Net) -> Tensor:
    centred = h - h.mean(-1, keepdim=True)
    return m.gamma * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() + m.beta


def by_difference_of_moments(h: Tensor, m: Net) -> Tensor:
    mean = h.mean(-1, keepdim=True)
    return (h - mean) * ((h * h).mean(-1, keepdim=True) - mean**2 + 1e-5).rsqrt()


def by_var_mean(h: Tensor, m: Net) -> Tensor:
    var, mean = torch.var_mean(h, -1, keepdim=True, correction=0)
    return torch.addcmul(m.beta, m.gamma, (h - mean) / (var + 1e-5).sqrt())


def response(h: Tensor, m: Net) -> Tensor:
    """Global response norm, over samples in the place of pixels."""
    size = h.norm(p=2, dim=0, keepdim=True)
    return h + torch.addcmul(m.beta, m.gamma, h * (size / (size.mean(-1, keepdim=True) + 1e-6)))


NORMS: dict[str, Norm] = {
    "RMS": rms,
    "layer norm": layer_norm,
    "moments": by_difference_of_moments,
    "var_mean": by_var_mean,
    "response": response,
    "normalize": lambda h, m: F.normalize(h, dim=-1),
    "normalize, L1": lambda h, m: F.normalize(h, p=1.0, dim=-1),
    "sum without the dimension": lambda h, m: h / h.abs().sum(-1)[:, None],
    "std, expanded": lambda h, m: h / h.std(-1, keepdim=True).expand_as(h),
    "of a function": lambda h, m: h * torch.sigmoid((h.relu() + 1).mean(-1, keepdim=True)),
    "of rows": lambda h, m: h - h.mean(),
    "instance norm": lambda h, m: F.instance_norm(h[:, None])[:, 0],
    "batch norm of the batch": lambda h, m: F.batch_norm(h.T, None, None, training=True).T,
    "of a weight": lambda h, m: (
        h * (m.head.weight / m.head.weight.norm(dim=1, keepdim=True)).sum(0)
    ),
}  # fmt: skip


def prepared(norm: Norm) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    return Net(norm).eval(), torch.randn(5, 6)


def first_of(model: nn.Module, x: Tensor) -> Group:
    return next(one for one in group(read(trace(model, x))).groups if one.name == "first")


@pytest.mark.parametrize("name", NORMS)
def test_channels_leave_a_norm_written_out(name):
    model, x = prepared(NORMS[name])
    pruned = plainly(model, x)
    (one,) = pruned.report.groups
    assert any("statistics are those of the channels that stay" in note for note in one.notes)
    assert pruned.report.notes == ()  # its results were compared with the plan's
    narrow, stay = Net(NORMS[name], WIDTH // 2).eval(), list(set(range(WIDTH)) - {*one.removed})
    with torch.no_grad():
        for part in ("first.weight", "first.bias", "gamma", "beta"):
            narrow.get_parameter(part).copy_(model.get_parameter(part)[stay])
        narrow.head.weight.copy_(model.head.weight[:, stay])
        narrow.head.bias.copy_(model.head.bias)
    torch.testing.assert_close(pruned.model(x), narrow(x))


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (rms, lambda h, m: F.rms_norm(h, h.shape[-1:], m.gamma, 1e-6)),
        (layer_norm, lambda h, m: F.layer_norm(h, h.shape[-1:], m.gamma, m.beta)),
    ],
)
@pytest.mark.parametrize("restorer", ["none", bequest.restorers.Regression(images=512, refine=0)])
def test_what_is_written_out_is_pruned_like_the_operator(written, kept, restorer):
    (one, x), (other, _) = prepared(written), prepared(kept)
    pruned = [
        bequest.prune(model, x, 0.5, restorer=restorer, round_to=1, progress=False)
        for model in (one, other)
    ]
    torch.testing.assert_close(pruned[0].model(x), pruned[1].model(x), atol=1e-4, rtol=1e-3)


MORE: dict[str, Norm] = {
    "a layer reads it": lambda h, m: h + m.pixels(h.mean(-1, keepdim=True)).sum(-1, keepdim=True),
    "a layer reads it beside them": lambda h, m: (
        torch.cat([h, h.mean(-1, keepdim=True)], -1).sin()[:, :WIDTH]
    ),
    "it scales other channels": lambda h, m: m.second(m.x) * h.mean(-1, keepdim=True),
    "it scales more than these": lambda h, m: (
        torch.cat([h, m.second(m.x)], -1) * h.square().mean(-1, keepdim=True)
    )[:, :WIDTH],
    "the largest": lambda h, m: h / h.abs().amax(-1, keepdim=True),
    "a product": lambda h, m: h * h.prod(-1, keepdim=True),
    "mixed over samples": lambda h, m: h * h.mean(-1, keepdim=True).softmax(0),
    "sorted": lambda h, m: h * h.mean(-1, keepdim=True).sort(0).values,
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_a_statistic_that_is_more_holds_its_channels(name):
    model, x = prepared(MORE[name])
    first = first_of(model, x)
    assert any("is reduced over its channels" in reason for reason in first.reasons)
    with pytest.warns(NothingPrunedWarning):
        pruned = bequest.prune(model, x, {"first": 0.5}, restorer="none", round_to=1)
    assert pruned.plan.groups == ()


def test_the_network_s_own_output_is_more_and_is_named():
    class Out(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.first(x)
            size = h.square().sum(-1, keepdim=True)
            return self.head(h * size.rsqrt()), size

    first = first_of(Out().eval(), torch.randn(5, 6))
    assert first.free == 0
    assert first.reasons[0].endswith("which scales more than these: output")


def test_standardised_weights_lose_the_inputs_that_leave():
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            var, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True, correction=0)
            return F.conv2d(x, (self.weight - mean) * (var + 1e-6).rsqrt(), self.bias, padding=1)

    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), Standardised(8, 4, 3, padding=1)
    pruned = plainly(randomise(nn.Sequential(*layers)), torch.randn(2, 3, 8, 8))
    assert [tuple(one.shape) for one in pruned.model.parameters() if one.ndim > 1] == [
        (4, 3, 3, 3),
        (4, 4, 3, 3),
    ]
    assert pruned.report.refused == ()
    (note,) = pruned.report.notes
    assert note.startswith("computed from other parameters before, now stored")


class Written(nn.Module):
    """RMS norm without weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def test_bounds_are_not_given_for_a_norm_written_out():
    model = nn.Sequential(nn.Linear(6, 8), Written(), nn.ReLU(), nn.Linear(8, 3))
    pruned = robust.prune(model, torch.zeros(1, 6), ratio=0.5, step=0.25)
    assert pruned.report.groups == ()
    assert any("is written out" in one.reason for one in pruned.report.refused)

"""The networks and calls whose results :mod:`benchmarks.checksums` records.

The networks of the zoo, the odd ones of the tests, and one that reads tokens, with random weights.
Small ones get every criterion with one restorer and every restorer with one criterion; those that
take long get some calls each, so that every method meets a deep network. Nothing but the public
interface is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from tests.networks import NETWORKS, randomise
from torch import Tensor, nn

import bequest
from bequest import hypersphere, robust
from bequest.restorers import LBYL, Merge, Regression

FEW = Regression(images=32, inversion=1)
CONFIGS: dict[str, Any] = {
    "regression": FEW,
    "regression-default": Regression(),
    "lbyl-official": LBYL(compat="official"),
    "merge-official": Merge(compat="official"),
}
READING_WEIGHTS = "l1 l2 geometric-median random bn-scale redundancy coreset".split()
OBSERVING = "obs mutual-information".split()
OTHER_RESTORERS = "none merge sum coreset moments regression".split()

SMALL = "lenet-300-100 vgg-digits resnet20".split()
DEEP = {
    "vgg16-cifar": "lbyl/l2 merge/l1/all",
    "resnet32": "moments/bn-scale/all",
    "resnet44": "lbyl/geometric-median coreset/coreset/all",
    "resnet56": "lbyl/l2 sum/redundancy/all regression/l1",
    "resnet110": "lbyl/l2/all",
    "resnet20-postact": "lbyl/l2 moments/bn-scale regression/l1/all",
    "resnet32-postact": "merge/l1/all",
    "resnet44-postact": "lbyl/bn-scale sum/redundancy/all",
    "resnet56-postact": "coreset/coreset/all",
    "resnet110-postact": "none/random/all",
    "wrn-40-4": "lbyl/l2 moments/geometric-median/all",
    "mobilenetv2-cifar": "lbyl/l2 merge/bn-scale/all sum/redundancy regression/l1",
    "resnet18": "lbyl/l2 moments/bn-scale/all coreset/coreset",
    "resnet34": "lbyl/l2/all",
    "resnet50": "lbyl/l1/all",
    "resnet101": "none/l2/all",
    "mobilenetv2": "lbyl/l2/all regression/bn-scale",
}
"""Calls for the networks that take long: restorer/criterion, and groups where not inner."""

ODD = "Residual DepthwiseTail GroupedBottleneck FusedAttention UnequalSplit Words".split()
"""Those of the odd networks that get every method."""


class Words(nn.Module):
    """Tokens through causal attention and a gated MLP; the embedding is the head, too."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(60, 16), nn.Embedding(12, 16)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.RMSNorm(16)
        self.qkv, self.out = nn.Linear(16, 48, bias=False), nn.Linear(16, 16)
        self.gate, self.up = nn.Linear(16, 40), nn.Linear(16, 40, bias=False)
        self.down = nn.Linear(40, 16, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time) → (batch, time, 60)."""
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return F.linear(x, self.words.weight)


@dataclass(frozen=True)
class Subject:
    """A network in evaluation mode, and the shape of its inputs."""

    model: nn.Module
    shape: tuple[int, ...]

    @classmethod
    def named(cls, name: str) -> Subject:
        """With random weights, and batch norms as after training; "NAME in bfloat16"."""
        torch.manual_seed(0)
        if name.endswith(" in bfloat16"):
            whole = cls.named(name.removesuffix(" in bfloat16"))
            return cls(whole.model.bfloat16(), whole.shape)
        if name == "Words":
            return cls(Words().eval(), (2, 6))
        for odd, shape in NETWORKS.items():
            if odd.__name__ == name:
                return cls(randomise(odd()), shape)
        channels, *size = bequest.zoo.entry(name).input_shape
        model = randomise(bequest.zoo.create(name))
        return cls(model, (2, channels, *(min(pixels, 64) for pixels in size)))

    def inputs(self, seed: int = 0) -> Tensor:
        """A batch of two, in the network's precision."""
        random = torch.Generator().manual_seed(seed)
        if isinstance(self.model, Words):
            return torch.randint(60, self.shape, generator=random)
        return torch.randn(self.shape, generator=random).to(next(self.model.parameters()).dtype)

    def batches(self) -> list[Tensor]:
        """Data as of a user."""
        return [self.inputs(seed) for seed in range(1, 17)]

    @cached_property
    def samples(self) -> Any:
        """Inputs that were made up before."""
        return FEW.samples(self.model, self.inputs(), None, 0)


@dataclass(frozen=True)
class Cell:
    """A call, by what tells it apart from others for the same network.

    Attributes:
        restorer: its name.
        criterion: its name, or the strategy's or mask's.
        setting: what else is given, or what is called instead of :func:`bequest.prune`.
        work: the call; what it returns is looked at by :mod:`benchmarks.checksums`.
    """

    restorer: str
    criterion: str
    setting: str
    work: Callable[[Subject], object]


def pruning(restorer: str = "lbyl", criterion: str = "l2", **options: Any) -> Cell:
    """A call of :func:`bequest.prune`.

    Args:
        restorer: its name, or one of :data:`CONFIGS`.
        criterion: its name.
        **options: of the call; ``data`` is "samples" or "batches".
    """

    def work(one: Subject) -> object:
        given = dict(options)
        if "data" in given:
            given["data"] = one.samples if given["data"] == "samples" else one.batches()
        return bequest.prune(
            one.model,
            one.inputs(),
            criterion=criterion,
            restorer=CONFIGS.get(restorer, restorer),
            progress=False,
            **given,
        )

    setting = ", ".join(f"{name}={value}" for name, value in options.items())
    return Cell(restorer, criterion, setting, work)


def every_method(**options: Any) -> list[Cell]:
    """Every criterion with one restorer, every restorer with one criterion."""
    return [
        *(pruning("lbyl", criterion, **options) for criterion in READING_WEIGHTS),
        *(pruning("lbyl", criterion, **options, data="samples") for criterion in OBSERVING),
        *(pruning(restorer, "l2", **options) for restorer in OTHER_RESTORERS),
    ]


def in_two_steps() -> Cell:
    """A pruned network is pruned again."""

    def work(one: Subject) -> object:
        first = bequest.prune(one.model, one.inputs(), 0.3, restorer="lbyl", progress=False)
        return bequest.prune(
            first.model, one.inputs(), 0.3, groups="all", restorer=FEW, progress=False
        )

    return Cell("lbyl, regression", "l2", "two steps", work)


def progressive(restorer: str, strategy: str) -> Cell:
    """A call of :func:`bequest.robust.prune`."""

    def work(one: Subject) -> object:
        return robust.prune(
            one.model,
            one.inputs(),
            ratio=0.4,
            step=1 / 4,
            strategy=strategy,
            restorer=CONFIGS.get(restorer, restorer),
        )

    return Cell(restorer, strategy, "robust", work)


def on_the_sphere(mask: str) -> list[Cell]:
    """Convert, prune and recover; and the penalty."""

    def recovered(one: Subject) -> object:
        network = hypersphere.convert(one.model)
        return hypersphere.recover(hypersphere.prune(network, 0.5, mask=mask))

    def penalty(one: Subject) -> object:
        return hypersphere.penalty(hypersphere.convert(one.model), 0.5, mask=mask)

    return [
        Cell("recover", mask, "hypersphere", recovered),
        Cell("", mask, "hypersphere.penalty", penalty),
    ]


def inspecting() -> Cell:
    """What :func:`bequest.inspect` tells."""
    return Cell("", "", "inspect", lambda one: bequest.inspect(one.model, one.inputs()))


def sampling(**fields: Any) -> Cell:
    """The inputs that a regression with these fields looks at."""

    def work(one: Subject) -> object:
        method = Regression(**{"images": 32, "inversion": 1, **fields})
        made = method.samples(one.model, one.inputs(), None, 0)
        return made.chunks, made.notes

    setting = ", ".join(["samples", *(f"{name}={value}" for name, value in fields.items())])
    return Cell("regression", "", setting, work)


def table() -> dict[str, list[Cell]]:
    """All cells, by network."""
    cells: dict[str, list[Cell]] = {name: [] for name in bequest.zoo.names()}
    for name in SMALL:
        cells[name] = [*every_method(), pruning(groups="all"), pruning("regression", groups="all")]
    for name, calls in DEEP.items():
        for restorer, criterion, *kinds in (call.split("/") for call in calls.split()):
            cells[name].append(pruning(restorer, criterion, groups=kinds[0] if kinds else "inner"))
    for name in [*(odd.__name__ for odd in NETWORKS), "Words"]:
        few = [pruning(groups="all"), pruning("regression", groups="all"), pruning("none", "l1")]
        cells[name] = [
            inspecting(),
            *(every_method(groups="all") if name in ODD else few),
            pruning("regression", "obs", groups="all", data="samples"),
        ]
    for name in ("lenet-300-100", "vgg-digits"):
        cells[name] += [
            pruning("regression-default"),
            pruning(target="params:0.5", data="samples"),
            pruning(target="macs:0.5", data="samples", criterion="obs"),
            pruning("regression", target="agreement:0.5", data="samples"),
            *(pruning("regression", one, data="batches") for one in ("l2", *OBSERVING)),
            *(progressive(one, "stochastic") for one in ("sum", "regression", "lbyl")),
        ]
    cells["vgg-digits"] += [sampling(source=one) for one in ("leaves", "pink", "white")]
    cells["resnet20"] += [
        pruning("lbyl-official"),
        pruning("merge-official"),
        pruning("sum", "redundancy"),
        pruning("coreset", "coreset"),
        pruning(scope="global"),
        pruning("regression", "obs", scope="global", groups="all", data="samples"),
        pruning("none", "random", ratio=0.3, round_to=1, seed=1),
        pruning("regression", ratio={"layer3.*": 0.7, "layer1.0.*": 0.0, "*": 0.3}, round_to=4),
        pruning("regression", target="macs:0.6", groups="all", data="samples"),
        in_two_steps(),
    ]
    cells["vgg-digits in bfloat16"] = [pruning(), pruning("regression", groups="all")]
    cells["Flattened"] += [
        *(progressive("sum", strategy) for strategy in ("baseline", "greedy", "stochastic")),
        progressive("regression", "stochastic"),
        pruning(target="agreement:0.5"),
        sampling(value_range=(0.0, 1.0)),
    ]
    cells["Words"] += [pruning("regression", data="batches"), sampling()]
    cells["UnequalSplit"] += [in_two_steps(), sampling()]
    for name in ("vgg-digits", "GroupedBottleneck", "Signal"):
        cells[name] += [
            one for mask in ("layer", "filter", "global") for one in on_the_sphere(mask)
        ]
    return cells

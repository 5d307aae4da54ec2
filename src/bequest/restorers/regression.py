"""Data-free regression: every layer behind a removal is refitted to what the dense network does.

Our own method (docs/methods.md, "regression"). The dense and the pruned network walk through the
graph in lock step over the same inputs. At each layer that reads something else than in the dense
network, a ridge regression with intercept maps what the pruned stream reads (its patches, x) to
what the dense stream writes (y), plus the error that the pruned stream carries in the branch that
the output is added to (r, in units before the layer's batch norm):

    min over ΔW, Δb of  Σ ‖y + r − (W₀ + ΔW)·x − b₀ − Δb‖² + ρ·‖ΔW‖²,

W₀ and b₀ the dense weights of the channels that stay, ρ = ridge × the mean diagonal of the centred
Gram of x. Centring the ridge on W₀ makes it harmless: nothing pruned upstream, nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from torch import Tensor, fx, linalg, nn

from bequest.config import register
from bequest.errors import UnknownNameError, UsageError
from bequest.graph.patches import outputs_at, patches, place_count
from bequest.graph.surgery import add_bias, can_hold_bias
from bequest.graph.trace import operator_of
from bequest.graph.walk import Layer, Walk
from bequest.statistics.samples import Samples, collect, inverted, synthesise
from bequest.statistics.synthetic import SOURCES


@register("restorer", "regression")
@dataclass(frozen=True)
class Regression:
    """Refits every layer behind a removal, over synthetic inputs or, with ``data=``, real ones.

    Attributes:
        images: number of inputs.
        source: synthetic inputs: "leaves", "pink" or "white" (:mod:`bequest.statistics.synthetic`).
        value_range: lowest and highest value of real inputs, where known; matters to networks
            without batch norm. None = zero mean and unit variance per channel.
        inversion: steps by which images are fitted to the statistics of the network's batch norms
            (:mod:`bequest.statistics.inversion`); each takes a forward and a backward pass.
        ridge: penalty on the change of the weights, relative to the mean variance of the inputs.
    """

    name: ClassVar[str]

    images: int = 256
    source: str = "leaves"
    value_range: tuple[float, float] | None = None
    inversion: int = 12
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("inversion", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"regression: expected {name} ≥ {least}, found {value!r}")
        if self.source not in SOURCES:
            raise UnknownNameError("source", str(self.source), SOURCES)
        if not 0 <= self.ridge < float("inf"):
            raise UsageError(f"regression: expected ridge ≥ 0, found {self.ridge!r}")
        if self.value_range is not None:
            low, high = self.value_range
            if not -float("inf") < low < high < float("inf"):
                raise UsageError(f"regression: expected a range low < high, found {low}, {high}")

    def samples(
        self,
        model: nn.Module,
        example_inputs: Any,
        data: Iterable[Any] | None,
        seed: int,
        *,
        show: bool = False,
    ) -> Samples:
        """The inputs to walk over: from ``data``, or made up.

        Args:
            model: the dense network, in at least single precision.
            example_inputs: whose shapes and types they get.
            data: batches of real inputs, or None.
            seed: of the draws.
            show: a progress bar on a terminal.
        """
        if data is not None:
            return collect(data, example_inputs, self.images)
        made = synthesise(example_inputs, self.images, self.source, self.value_range, seed)
        return inverted(model, made, self.inversion, show=show)


ROWS_PER_UNKNOWN = 128
"""Rows of a regression per input of its layer: more of them hardly tell more."""


@dataclass(frozen=True)
class Fit:
    """How well a layer could be refitted.

    Attributes:
        layer: qualified name.
        before: relative error ‖y + r − ŷ‖ / ‖y + r − mean‖ with the dense weights of what stays.
        after: the same after the refit.
        condition: condition number of the ridged Gram.
        samples: number of rows that the regression saw.
        unknowns: number of inputs of each row.
    """

    layer: str
    before: float
    after: float
    condition: float
    samples: int
    unknowns: int

    def notes(self) -> tuple[str, ...]:
        """What should be reported of the fit."""
        if self.samples >= self.unknowns:
            return ()
        return (
            f"{self.layer}: {self.samples} samples for {self.unknowns} unknowns, held by the ridge "
            "alone; give more images",
        )


class Refit:
    """Refits each layer that a walk meets; collects how well, and who was given a bias."""

    def __init__(self, walk: Walk, ridge: float, seed: int) -> None:
        self.walk = walk
        self.seed = seed
        self.ridge = ridge
        self.fits: list[Fit] = []
        self.new_biases: list[str] = []

    def __call__(self, layer: Layer) -> None:
        """Solves the layer's regression and writes its weight and bias."""
        if "transpose" in operator_of(layer.node):
            return
        module = self.walk.pruned.get_submodule(layer.name)
        debts = self._debts(layer)
        moments = Moments(module, sampled_places(module, layer, self.seed))
        for number, (x, dense) in enumerate(zip(layer.inputs, layer.dense, strict=True)):
            moments.add(x, dense if debts is None else dense + debts[number])
        change, intercept, condition = solve(moments, self.ridge)
        self.fits.append(_fit(layer.name, moments, change, condition))
        self._write(layer.name, change, intercept)

    def _write(self, name: str, change: Tensor, intercept: Tensor) -> None:
        module = self.walk.pruned.get_submodule(name)
        weight = module.weight
        assert isinstance(weight, Tensor)
        weight.add_(change.reshape(weight.shape).to(weight.dtype))
        if module._parameters.get("bias") is None and can_hold_bias(self.walk.pruned, name):
            add_bias(self.walk.pruned, name)
            self.new_biases.append(name)
        bias = module._parameters.get("bias")
        if bias is not None:
            bias.add_(intercept.flatten().to(weight.dtype))

    def _debts(self, layer: Layer) -> list[Tensor] | None:
        """What the branch that the layer is added to lacks, in units of the layer's outputs."""
        found = _added_to(self.walk, layer.node)
        if found is None:
            return None
        partner, norm = found
        missing = self.walk.difference(partner)
        if missing is None or missing[0].shape != layer.dense[0].shape:
            return None
        if norm is None:
            return missing
        scale = self.walk.norm_scale(norm, layer.dense)
        shape = [-1 if d == 1 else 1 for d in range(missing[0].ndim)]
        return [chunk / scale.view(shape) for chunk in missing]


def _added_to(walk: Walk, node: fx.Node) -> tuple[fx.Node, fx.Node | None] | None:
    """The other operand of the addition that the node's output goes to, and the norm between."""
    norm: fx.Node | None = None
    while len(node.users) == 1:
        (user,) = node.users
        if walk.reading.roles.get(user) == "norm" and norm is None:
            norm = user
        elif operator_of(user) == "add" and len(user.all_input_nodes) == 2:
            (partner,) = (value for value in user.all_input_nodes if value is not node)
            return partner, norm
        elif operator_of(user) not in ("getitem", "clone", "alias"):
            return None
        node = user
    return None


def sampled_places(module: nn.Module, layer: Layer, seed: int) -> Tensor | None:
    """A random part of a layer's output places, where all of them are more than it takes."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    count = place_count(module, layer.dense[0])
    samples = sum(len(chunk) for chunk in layer.dense)
    wanted = -(-ROWS_PER_UNKNOWN * weight[0].numel() // samples)
    if wanted >= count:
        return None
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(count, generator=generator)[:wanted].sort().values
    return places.to(weight.device)


class Moments:
    """Sums over rows x and errors e of one layer, in float64, gathered chunk by chunk.

    A row of ones beside each x makes the sums part of the products.
    """

    def __init__(self, module: nn.Module, places: Tensor | None) -> None:
        self.module = module
        self.places = places
        self.rows = 0
        self.gram: Tensor = torch.zeros(())
        self.cross: Tensor = torch.zeros(())
        self.square = self.spread = 0.0

    def add(self, x: Tensor, target: Tensor) -> None:
        """Adds the rows of one chunk: what the layer reads, and what it should write."""
        errors = outputs_at(self.module, target - self.module(x), self.places)
        rows = F.pad(patches(self.module, x, self.places), (0, 1), value=1.0)
        self.rows += rows.shape[1]
        self.gram = self.gram + (rows.mT @ rows).double()
        self.cross = self.cross + (rows.mT @ errors).double()
        self.square += float(linalg.vector_norm(errors)) ** 2
        self.spread += _spread(outputs_at(self.module, target, self.places))

    def centred(self) -> tuple[Tensor, Tensor]:
        """Gram of the rows (g, d, d), and their products with the errors (g, d, o), about means."""
        sums, errors = self.gram[:, :-1, -1], self.cross[:, -1]
        gram = self.gram[:, :-1, :-1] - sums[:, :, None] * sums[:, None, :] / self.rows
        cross = self.cross[:, :-1] - sums[:, :, None] * errors[:, None, :] / self.rows
        return gram, cross


def _spread(outputs: Tensor) -> float:
    """Sum of squares about the mean of the chunk."""
    return float(linalg.vector_norm(outputs - outputs.mean(1, keepdim=True))) ** 2


def solve(moments: Moments, ridge: float) -> tuple[Tensor, Tensor, float]:
    """ΔW (g, o, d), Δb (g, o) and the condition number, by one Cholesky factorisation per group.

    Where rounding leaves the ridged Gram indefinite, by its eigenvalues.
    """
    gram, cross = moments.centred()
    scale = gram.diagonal(dim1=1, dim2=2).mean(1)
    scale = torch.where(scale > 0, scale, 1.0)
    system = gram.clone()
    system.diagonal(dim1=1, dim2=2).add_(ridge * scale[:, None])
    factor, failed = linalg.cholesky_ex(system)
    if failed.any():
        values, vectors = linalg.eigh(system)
        inverse = 1 / values.clamp(min=1e-12 * values[:, -1:])
        change = vectors @ (inverse[:, :, None] * (vectors.mT @ cross))
        condition = float((values[:, -1] * inverse.amax(1)).max())
    else:
        change = torch.cholesky_solve(cross, factor)
        diagonal = factor.diagonal(dim1=1, dim2=2)
        condition = float((diagonal.amax(1) / diagonal.amin(1)).square().max())
    sums, errors = moments.gram[:, :-1, -1], moments.cross[:, -1]
    intercept = (errors - (sums[:, None, :] @ change)[:, 0]) / moments.rows
    return change.mT, intercept, condition


def _fit(name: str, moments: Moments, change: Tensor, condition: float) -> Fit:
    """Relative errors before and after, from the moments alone."""
    gram, cross = moments.centred()
    gained = 2 * (change.mT * cross).sum() - (change * (change @ gram)).sum()
    gained = gained + moments.cross[:, -1].square().sum() / moments.rows
    scale = max(moments.spread, 1e-300)
    left = max(0.0, moments.square - float(gained))
    errors = (moments.square / scale) ** 0.5, (left / scale) ** 0.5
    return Fit(name, *errors, condition, moments.rows, gram.shape[1])

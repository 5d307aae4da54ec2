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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, fx, linalg, nn

from bequest.config import register
from bequest.errors import UnknownNameError, UsageError
from bequest.execution.copies import private_copy
from bequest.execution.devices import device_of
from bequest.execution.modes import in_plain_mode
from bequest.graph.inputs import mapped, normalise_inputs
from bequest.graph.patches import as_weight
from bequest.graph.spill import Mapped
from bequest.graph.surgery import add_bias, can_hold_bias
from bequest.graph.trace import inputs_for, operator_of
from bequest.graph.walk import Layer, Walk
from bequest.measure.cost import cost
from bequest.measure.execution import placed
from bequest.measure.precision import at_least_single, working_dtype
from bequest.statistics.batching import Batching
from bequest.statistics.given import collect
from bequest.statistics.making import inverted, synthesise
from bequest.statistics.moments import Moments, sampled_places
from bequest.statistics.samples import CHUNK, Samples
from bequest.statistics.scale import noted
from bequest.statistics.synthetic import SOURCES


@register("restorer", "regression")
@dataclass(frozen=True)
class Regression:
    """Refits every layer behind a removal, over synthetic inputs or, with ``data=``, real ones.

    Attributes:
        images: number of inputs; None = 256, and up to 4,096 for networks so small that all of them
            together take no more than :data:`BUDGET` multiply-accumulates.
        source: synthetic inputs: "leaves", "pink" or "white" (:mod:`bequest.statistics.synthetic`).
        value_range: lowest and highest value of real inputs, where known; matters to networks
            without batch norm. None = zero mean and unit variance per channel.
        inversion: steps by which images are fitted to the statistics of the network's batch norms,
            or, where it has none, to its classes (:mod:`bequest.statistics.inversion`); each takes
            a forward and a backward pass. None = 12, and down to 3 where all of them together take
            more than :data:`EFFORT` multiply-accumulates.
        ridge: penalty on the change of the weights, relative to the mean variance of the inputs;
            :data:`MADE_UP` times that where tokens are made up.
    """

    name: ClassVar[str]

    images: int | None = None
    source: str = "leaves"
    value_range: tuple[float, float] | None = None
    inversion: int | None = None
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("inversion", 0)):
            value = getattr(self, name)
            if value is None:
                continue
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

    @in_plain_mode
    def samples(
        self,
        model: nn.Module,
        example_inputs: Any,
        data: Samples | Iterable[Any] | None,
        seed: int,
        *,
        show: bool = False,
    ) -> Samples:
        """The inputs to walk over: from ``data``, or made up.

        Args:
            model: the dense network; a copy of it is run.
            example_inputs: whose shapes and types they get.
            data: batches of real inputs, or the samples of an earlier call, which are all taken;
                None = they are made up.
            seed: of the draws.
            show: a progress bar on a terminal.
        """
        model = private_copy(at_least_single(model))
        args, kwargs = inputs_for(model, example_inputs)
        example_inputs = mapped(kwargs or args, lambda one: one.to(working_dtype(one.dtype)))
        if isinstance(data, Samples):
            return data.placed_like(example_inputs, device_of(model))
        if data is not None:
            most = self.images or _affordable(_macs_of_one(model, example_inputs))
            return noted(collect(model, data, example_inputs, most), model, example_inputs)
        count, steps = self.images, self.inversion
        if count is None or steps is None:
            each = _macs_of_one(model, example_inputs)
            count = count or _affordable(each)
            if steps is None:
                bearable = EFFORT // (PASSES * count * each)
                steps = min(MOST_STEPS, max(FEWEST_STEPS, bearable))
        made = synthesise(model, example_inputs, count, self.source, self.value_range, seed)
        made = inverted(model, made, example_inputs, steps, self.value_range, seed, show=show)
        return noted(made, model, example_inputs)


FEWEST, MOST = 256, 4096
"""Inputs that are looked at where nobody says how many."""

FEWEST_STEPS, MOST_STEPS = 3, 12
"""Steps of inversion where nobody says how many."""

EFFORT = 10**13
"""Multiply-accumulates up to which there are more than the fewest steps: minutes on a CPU."""

PASSES = 3
"""What a step takes, in forward passes: one, and backwards two."""

BUDGET = 4 * 10**9
"""Multiply-accumulates of a pass of all inputs up to which there are more than the fewest."""

MADE_UP = 100
"""Times the ridge where tokens are made up: layers see so little of texts in them that following
them closely does more harm than nothing handed on."""

ENOUGH_ROWS = 32
"""Rows per unknown under which the ridge is raised: fewer of them are fitted with their noise."""


@dataclass(frozen=True)
class Fit:
    """How well a layer could be refitted.

    Attributes:
        layer: qualified name.
        before: relative error ‖y + r − ŷ‖ / ‖y + r − mean‖ with the dense weights of what stays.
        after: the same after the refit.
        condition: condition number of the ridged Gram.
        by_eigenvalues: rounding left the Gram indefinite, so that its eigenvalues were taken.
        ridge: the ridge that was used, relative to the mean variance of the inputs.
        samples: number of rows that the regression saw.
        unknowns: number of inputs of each row.
    """

    layer: str
    before: float
    after: float
    condition: float
    by_eigenvalues: bool
    ridge: float
    samples: int
    unknowns: int

    def notes(self) -> tuple[str, ...]:
        """What should be reported of the fit."""
        notes = []
        if self.samples < self.unknowns:
            notes.append(
                f"{self.layer}: {self.samples} samples for {self.unknowns} unknowns, held by the "
                f"ridge alone, which was raised to {self.ridge:.3g}; give more images"
            )
        if self.by_eigenvalues:
            notes.append(f"{self.layer}: ill-conditioned inputs, solved by eigenvalues")
        return tuple(notes)


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
        module = self.walk.pruned.get_submodule(layer.name)
        moments = Moments(module, sampled_places(module, layer, self.seed))
        for x, target in zip(layer.inputs, self._targets(layer), strict=True):
            moments.add(x, target)
        moments.check(layer.name)
        solution = solve(moments, self.ridge)
        self.fits.append(_fit(layer.name, moments, solution, self.ridge))
        self._write(layer.name, solution.change, solution.intercept)

    def _write(self, name: str, change: Tensor, intercept: Tensor) -> None:
        module = self.walk.pruned.get_submodule(name)
        weight = module.weight
        assert isinstance(weight, Tensor)
        weight.add_(as_weight(module, change).to(weight.dtype))
        if module._parameters.get("bias") is None and can_hold_bias(self.walk.pruned, name):
            add_bias(self.walk.pruned, name)
            self.new_biases.append(name)
        bias = module._parameters.get("bias")
        if bias is not None:
            bias.add_(intercept.flatten().to(weight.dtype))

    def _targets(self, layer: Layer) -> Sequence[Tensor]:
        """What the layer should write: y + r."""
        found = _added_to(self.walk, layer.node)
        missing = None if found is None else self.walk.difference(found[0])
        if found is None or missing is None or missing[0].shape != layer.dense[0].shape:
            return layer.dense
        debts, norm = missing, found[1]
        if norm is None:
            return Mapped(lambda i: layer.dense[i] + debts[i], len(debts))
        scale = 1 / self.walk.norm_scale(norm, layer.node)
        scale = scale.view([-1 if d == 1 else 1 for d in range(layer.dense[0].ndim)])
        return Mapped(lambda i: torch.addcmul(layer.dense[i], debts[i], scale), len(debts))


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


def _affordable(each: int) -> int:
    """How many inputs, in whole chunks, are looked at where nobody says it; each costs MACs."""
    chunks = -(-max(FEWEST, BUDGET // each) // CHUNK)
    return min(MOST, chunks * CHUNK)


def _macs_of_one(model: nn.Module, example_inputs: Any) -> int:
    """Multiply-accumulates of one input, at least 1."""
    args, kwargs = normalise_inputs(example_inputs)
    macs = cost(model, mapped(placed(kwargs or args, model), Tensor.clone)).macs
    return max(1, macs // Batching.of(example_inputs).size)


class Solution(NamedTuple):
    """A layer's regression: what its weight and bias change by.

    Attributes:
        change: ΔW, (g, o, d).
        intercept: Δb, (g, o).
        condition: condition number of the ridged Gram, the worst of the groups.
        by_eigenvalues: solved by them, not by Cholesky factors.
    """

    change: Tensor
    intercept: Tensor
    condition: float
    by_eigenvalues: bool


def solve(moments: Moments, ridge: float) -> Solution:
    """The ridge regression, by one Cholesky factorisation per group of the layer.

    Where rounding leaves the ridged Gram indefinite, by its eigenvalues. With fewer than
    :data:`ENOUGH_ROWS` rows per unknown the ridge grows in proportion.
    """
    gram, cross = moments.centred()
    scale = gram.diagonal(dim1=1, dim2=2).mean(1)
    scale = torch.where(scale > 0, scale, 1.0) * _raised(moments)
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
    intercept = (moments.errors - (moments.sums[:, None, :] @ change)[:, 0]) / moments.rows
    return Solution(change.mT, intercept, condition, bool(failed.any()))


def _raised(moments: Moments) -> float:
    """By how much the ridge grows where there are few rows per unknown."""
    return max(1.0, ENOUGH_ROWS * moments.gram.shape[1] / moments.rows)


def _fit(name: str, moments: Moments, solution: Solution, ridge: float) -> Fit:
    """Relative errors before and after, from the moments alone."""
    gram, cross = moments.centred()
    change = solution.change
    gained = 2 * (change.mT * cross).sum() - (change * (change @ gram)).sum()
    gained = gained + moments.errors.square().sum() / moments.rows
    scale = max(moments.spread, 1e-300)
    left = max(0.0, moments.square - float(gained))
    errors = (moments.square / scale) ** 0.5, (left / scale) ** 0.5
    return Fit(
        layer=name,
        before=errors[0],
        after=errors[1],
        condition=solution.condition,
        by_eigenvalues=solution.by_eigenvalues,
        ridge=ridge * _raised(moments),
        samples=moments.rows,
        unknowns=gram.shape[1],
    )

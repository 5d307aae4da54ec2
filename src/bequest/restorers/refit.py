"""Refits each layer that a walk meets, as :mod:`bequest.restorers.regression` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from bequest.calibration.moments import Moments, sampled_places
from bequest.calibration.patches import as_weight
from bequest.calibration.walk import Layer, Walk
from bequest.restorers.normal_equations import Solution, solve
from bequest.restorers.wanted import wanted


@dataclass(frozen=True)
class Fit:
    """How a layer was refitted.

    Attributes:
        layer: qualified name.
        solution: of its regression; None where its weight stayed as it was.
        samples: number of rows that were looked at.
        unknowns: number of inputs of each row.
        notes: what should be reported.
    """

    layer: str
    solution: Solution | None
    samples: int
    unknowns: int
    notes: tuple[str, ...]


class Refit:
    """Refits each layer that a walk meets; collects how, and who was given a bias.

    Attributes:
        fits: layer → how it was refitted.
        new_biases: layers that were given a bias.
        former: name → weight or bias that was changed, as it had been.
    """

    def __init__(self, walk: Walk, ridge: float, seed: int) -> None:
        self.walk = walk
        self.seed = seed
        self.ridge = ridge
        self.fits: dict[str, Fit] = {}
        self.new_biases: list[str] = []
        self.former: dict[str, Tensor] = {}

    def __call__(self, layer: Layer) -> None:
        """Solves the layer's regression and writes its weight and biases."""
        biases = {call.bias: self.walk.owns_bias(layer, call) for call in layer.calls}
        moments = self._moments(layer)
        rows = sum(one.rows for one in moments.values())
        unknowns = next(iter(moments.values())).unknowns
        solution: Solution | None = None
        gains: dict[str | None, Tensor] = {}
        notes: list[str] = []
        if rows == 1:
            notes.append("a single row tells nothing of others: left as it is")
        elif not layer.whole:
            gains = {b: one.means()[1] for b, one in moments.items() if b is not None and biases[b]}
            notes.append(f"shared by {layer.uses} calls, which read each other: left as it is")
            notes += [f"corrected by its bias '{name}' alone" for name in gains]
        else:
            intercept = all(biases.values()) or self.walk.can_give_bias(layer)
            solution = solve(list(moments.values()), self.ridge, intercept=intercept)
            gains = dict(zip(moments, solution.intercepts, strict=False))
            notes += _solution_notes(solution, rows, unknowns)
            if not intercept:
                notes.append("it has no bias of its own: fitted without intercept")
        self._write(layer, solution, gains)
        named = tuple(f"{layer.name}: {note}" for note in notes)
        self.fits[layer.name] = Fit(layer.name, solution, rows, unknowns, named)

    def _moments(self, layer: Layer) -> dict[str | None, Moments]:
        """Bias → moments of the calls that add it."""
        weight = self.walk.tensor(layer.weight)
        assert weight is not None
        found: dict[str | None, Moments] = {}
        for call in layer.calls:
            one = found.get(call.bias)
            if one is None:
                one = Moments(call.geometry, weight, self.walk.tensor(call.bias))
                found[call.bias] = one
            places = sampled_places(call, one.unknowns, self.seed)
            for x, target in zip(call.inputs, wanted(self.walk, call), strict=True):
                one.add(call.geometry, x, target, places)
            one.check(layer.name)
        return found

    def _write(
        self, layer: Layer, solution: Solution | None, gains: Mapping[str | None, Tensor]
    ) -> None:
        if solution is not None:
            weight = self.walk.tensor(layer.weight)
            assert weight is not None
            change = as_weight(layer.calls[0].geometry, solution.change, weight.shape)
            self._raise(layer.weight, change)
        for bias, gain in gains.items():
            self._raise(bias or self._new_bias(layer), gain.flatten())

    def _new_bias(self, layer: Layer) -> str:
        self.new_biases.append(layer.name)
        return self.walk.give_bias(layer)

    def _raise(self, name: str, gain: Tensor) -> None:
        tensor = self.walk.tensor(name)
        assert tensor is not None
        self.former[name] = tensor.detach().clone()
        tensor.detach().copy_((tensor.detach().double() + gain).to(tensor.dtype))


def _solution_notes(solution: Solution, rows: int, unknowns: int) -> list[str]:
    notes = []
    if rows < unknowns:
        notes.append(
            f"{rows} samples for {unknowns} unknowns, held by the ridge alone, which was raised to "
            f"{solution.ridge:.3g}; give more images"
        )
    if solution.by_eigenvalues:
        notes.append("ill-conditioned inputs, solved by eigenvalues")
    if solution.constant == unknowns:
        notes.append("none of its inputs varies: only its bias was corrected")
    return notes

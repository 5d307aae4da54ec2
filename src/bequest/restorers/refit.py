"""What a restorer by walk is told of a layer, and what it says to do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from bequest.calibration.layers import Call, Layer
from bequest.calibration.moments import Moments
from bequest.calibration.patches import weight_rows
from bequest.calibration.rows import sampled_places
from bequest.calibration.walk import Walk
from bequest.errors import ModelError
from bequest.restorers.former import Former
from bequest.restorers.wanted import wanted


class Fit(Protocol):
    """What is reported of a system of equations that was solved.

    Attributes:
        condition: its condition number.
        ridge: its ridge, relative.
    """

    @property
    def condition(self) -> float: ...  # noqa: D102 -- described above

    @property
    def ridge(self) -> float: ...  # noqa: D102


class Conditions(NamedTuple):
    """A :class:`Fit` without what was found."""

    condition: float
    ridge: float


@dataclass(frozen=True)
class Change:
    """What a layer's weight and biases change by.

    Attributes:
        weight: float64, of the weight's shape; None = it stays as it is.
        biases: name of a bias, as in :meth:`Seen.moments` → what it gains, float64 (o,) or of a
            shape that flattens to it; None stands for a new bias of the layer's own.
        notes: what should be reported.
        fit: of the equations that were solved, if any were.
    """

    weight: Tensor | None = None
    biases: Mapping[str | None, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fit: Fit | None = None

    def told(self) -> Change:
        """What is reported of it, without the numbers."""
        fit = self.fit and Conditions(self.fit.condition, self.fit.ridge)
        return Change(notes=self.notes, fit=fit)


class Seen:
    """A layer that reads something else than in the dense network.

    Attributes:
        layer: its weight and the operators that apply it.
        made_up: whether the inputs are tokens without sense, of which little can be learnt.
    """

    def __init__(
        self,
        walk: Walk,
        layer: Layer,
        seed: int,
        made_up: bool,
        may_give: bool,
        before: dict[object, Moments],
        former: Former,
        plain: bool = False,
    ) -> None:
        self.layer = layer
        self._former = former  # of the pruned network: what differs from the dense one but by cuts
        self._plain = plain
        self.made_up = made_up
        self._may_give = may_give
        self._walk, self._seed = walk, seed
        self._before = before  # of the layer met before, which may have read the same rows

    @property
    def weight(self) -> Tensor:
        """As it is now, without the channels that left."""
        weight = self._walk.tensor(self.layer.weight)
        assert weight is not None
        return weight

    def bias_of(self, call: Call) -> Tensor | None:
        """What a call adds."""
        return self._walk.tensor(call.bias)

    @property
    def loses_inputs(self) -> bool:
        """Whether channels that it reads have left."""
        return any(
            read.weight == self.layer.weight and bool(self._walk.cut.gone(read.labels).any())
            for read in self._walk.reading.reads
        )

    @property
    def outputs(self) -> int:
        """How many outputs the layer has: what a bias has a number for."""
        call = self.layer.calls[0]
        space = 0 if call.geometry.linear else len(call.geometry.kernel)
        return int(call.dense[0].shape[-1 - space])

    @cached_property
    def owned(self) -> Mapping[str | None, bool]:
        """Bias → whether nothing but this layer reads it; None: calls that add none."""
        return {call.bias: self._walk.owns_bias(self.layer, call) for call in self.layer.calls}

    @property
    def may_have_bias(self) -> bool:
        """Whether all calls add a bias that can change, or one could be given that they add."""
        given = self._may_give and self._walk.can_give_bias(self.layer)
        return given or all(self.owned.values())

    @cached_property
    def moments(self) -> dict[str | None, Moments]:
        """Bias → moments of what the calls that add it read (x) and lack (wanted − written)."""
        found: dict[str | None, Moments] = {}
        alone = len(self.layer.calls) == 1
        for call in self.layer.calls:
            unknowns = weight_rows(call.geometry, self.weight).shape[2]
            places = sampled_places(call, unknowns, self._seed)
            rows = call.node.args[0], call.geometry, None if places is None else len(places)
            one = found.get(call.bias)
            if one is None:
                like = self._before.get(rows) if alone else None
                bias = self.bias_of(call)
                one = found[call.bias] = Moments(call.geometry, self.weight, bias, like)
            target = call.dense if self._plain else wanted(self._walk, call)
            source: Any = call.node.args[0]
            lack = self._walk.difference(source)
            whole = alone and places is None and target is call.dense
            if whole and lack is not None and self.errs_by_inputs(call):
                one.add_lacking(call.geometry, call.inputs, lack)
            else:
                one.add(call.geometry, call.inputs, target, places)
            one.check(self.layer.name)
            self._before.clear()
            if alone:
                self._before[rows] = one.alone()
        return found

    def errs_by_inputs(self, call: Call) -> bool:
        """Whether W·(x_dense − x) is all that a linear layer's outputs lack, and cheap."""
        _, outputs, inputs = weight_rows(call.geometry, self.weight).shape
        return (
            call.geometry.linear
            and inputs <= 2 * outputs
            and not self.loses_inputs
            and not self._former.changed.intersection((self.layer.weight, call.bias))
        )


class Refit:
    """Changes each layer that a walk meets, and keeps account of it.

    Args:
        walk: over both networks.
        refit: says what a layer is to change by.
        seed: of the draws.
        made_up: as :class:`Seen` has it.
        may_give: whether the layer of that name may be given a bias.
        name: of the restorer.
        former: of the networks that are walked over.
        plain: whether a layer is to write what it wrote in the dense network, and no more.

    Attributes:
        changes: layer → what is reported of what was done to it.
        new_biases: layers that were given a bias.
        former: weights and biases that were changed, as they had been.
    """

    def __init__(
        self,
        walk: Walk,
        refit: Callable[[Seen], Change],
        seed: int,
        *,
        made_up: bool,
        may_give: Callable[[str], bool],
        name: str,
        former: Former,
        plain: bool = False,
    ) -> None:
        self.plain = plain
        self.walk, self.refit, self.seed, self.made_up = walk, refit, seed, made_up
        self.may_give, self.name = may_give, name
        self.changes: dict[str, Change] = {}
        self.new_biases: list[str] = []
        self.former = former
        self._before: dict[object, Moments] = {}

    def __call__(self, layer: Layer) -> None:
        """Asks what the layer is to change by and writes it.

        Raises:
            TypeError, ValueError: it is no change, or doesn't fit the layer.
            ModelError: it is not finite, as from weights that are not.
        """
        change = self._asked(layer)
        self.changes[layer.name] = change.told()
        if change.weight is not None:
            self.raise_by(layer.weight, change.weight)
        for bias, gain in change.biases.items():
            self.raise_by(bias or self._new_bias(layer), gain.flatten())

    def _asked(self, layer: Layer) -> Change:
        """What the layer is to change by; nothing else of what was seen of it stays."""
        may_give = self.may_give(layer.name)
        before, former = self._before, self.former
        seen = Seen(self.walk, layer, self.seed, self.made_up, may_give, before, former, self.plain)
        return self.asked(seen)

    def asked(self, seen: Seen) -> Change:
        """What a layer is to change by; raises as a call does."""
        change = self.refit(seen)
        self._check(seen, change)
        return change

    def raise_by(self, name: str, gain: Tensor) -> None:
        """Adds to a weight or bias."""
        tensor = self.walk.tensor(name)
        assert tensor is not None
        self.former.note(name)
        self.walk.write(name, tensor.detach().double().add_(gain), f"the {self.name}")

    def _check(self, seen: Seen, change: Change) -> None:
        whose = f"restorer '{self.name}': '{seen.layer.name}'"
        if not isinstance(change, Change):
            raise TypeError(f"{whose}: expected a Change, found {type(change).__name__}")
        if change.weight is not None and change.weight.shape != seen.weight.shape:
            found, expected = tuple(change.weight.shape), tuple(seen.weight.shape)
            raise ValueError(f"{whose}: expected a weight of shape {expected}, found {found}")
        for bias, gain in change.biases.items():
            given = bias is None and bias in seen.owned and seen.may_have_bias
            if not given and not seen.owned.get(bias):
                raise ValueError(
                    f"{whose}: expected biases that nothing else reads, or None where it may be "
                    f"given one, found {bias!r}; ask seen.owned and seen.may_have_bias"
                )
            if gain.numel() != seen.outputs:
                raise ValueError(
                    f"{whose}: expected {seen.outputs} gains of {bias!r}, found {gain.numel()}"
                )
        for values in (change.weight, *change.biases.values()):
            if values is not None and not bool(values.isfinite().all()):
                raise ModelError(
                    f"{whose}: expected a finite change, found NaN or infinity; look for such "
                    "values in its weights, or take another restorer"
                )

    def _new_bias(self, layer: Layer) -> str:
        self.new_biases.append(layer.name)
        return self.walk.give_bias(layer)

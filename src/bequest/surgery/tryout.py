"""Does a pruned network compute what its plan says? It runs before it is handed back.

Its results on made-up or given inputs must be those of the dense network whose removed channels are
zero (:mod:`bequest.surgery.masked`), with the same refitted weights, to rounding. Both run once in
the precision at work; where their distance could be more than rounding, once more in double
precision, which tells amplified rounding from another computation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bequest.errors import BequestError, UsageError
from bequest.execution.copies import private_copy
from bequest.execution.devices import device_of
from bequest.execution.precision import HALF, working_precision
from bequest.graph.groups import Channels
from bequest.graph.inputs import normalise_inputs
from bequest.graph.interpreter import Traced
from bequest.graph.trace import Network, named_tensors, operator_of, refuse_inputs, trace
from bequest.graph.vocabulary import vocabularies
from bequest.surgery import operation
from bequest.surgery.cut import Cut
from bequest.surgery.cuts import plan_surgery
from bequest.surgery.distance import DifferentError, IncomparableError, compared, joined
from bequest.surgery.masked import Masked
from bequest.surgery.operation import Surgery
from bequest.surgery.program import Program

CLOSE = 1e-4
"""Relative distance in single precision up to which nothing needs to be looked at again."""

ROUNDING = 1e-7
"""The same in double precision, where a network that was cut right stays far below it."""

TOLERATED = 1e-2
"""The distance in single precision that is borne where double precision can't be had."""

LARGEST = 2**31
"""Bytes of parameters up to which a network is copied in double precision."""

SMALL = 2**24
"""Bytes of parameters up to which a network that is tried on a single sample is tried on two."""

_RANDOM = frozenset(
    "bernoulli exponential geometric multinomial normal normal_functional poisson rand rand_like "
    "randint randint_like randn randn_like randperm rrelu_with_noise uniform".split()
)


@dataclass(frozen=True)
class Finding:
    """What a try-out has shown.

    Attributes:
        problem: how the network's results differ from what the plan says; None = they don't.
        unchecked: why they could not be compared, in words; None = they were.
    """

    problem: str | None = None
    unchecked: str | None = None


@dataclass(frozen=True)
class Trial:
    """The dense network, and inputs to compare others with it on.

    Attributes:
        model: the dense network, a private copy in evaluation mode.
        channels: its groups.
        inputs: values for every input of its graph, in order; others, should it not bear those.
        more: values beside the first, to see how results vary; none where they are batches.
        structure: how they make up the arguments of a call.
    """

    model: nn.Module
    channels: Channels
    inputs: tuple[tuple[Any, ...], ...]
    more: tuple[Any, ...] | None
    structure: pytree.TreeSpec

    @property
    def examples(self) -> tuple[Any, ...]:
        """The example inputs, in order."""
        return self.inputs[-1]

    @cached_property
    def asks_for_half(self) -> bool:
        """Whether the network's code asks for half precision beside parameters of full."""
        values = (node.meta.get("val") for node in self.channels.reading.network.nodes)
        half = any(isinstance(one, Tensor) and one.dtype in HALF for one in values)
        return half and not self.is_half

    @property
    def is_half(self) -> bool:
        """Whether the network itself is in half precision."""
        return any(parameter.dtype in HALF for parameter in self.model.parameters())

    @classmethod
    def over(
        cls, model: nn.Module, channels: Channels, example_inputs: Any, given: Sequence[Tensor] = ()
    ) -> Trial:
        """A trial on given tensors, or on made-up ones of the examples' shapes.

        Args:
            model: the dense network, a private copy.
            channels: its groups, traced with the example inputs.
            example_inputs: as :func:`bequest.prune` takes them.
            given: values for the tensors among them, in order; none = they are made up.
        """
        leaves, structure = pytree.tree_flatten(normalise_inputs(example_inputs))
        network = channels.reading.network

        def filled(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
            made = iter(tensors)
            return tuple(next(made) if isinstance(one, Tensor) else one for one in leaves)

        values = filled(given or _made_up(network, leaves, seed=0))
        alone = not any(isinstance(one, Tensor) and one.ndim and len(one) > 1 for one in values)
        cheap = sum(parameter.nbytes for parameter in model.parameters()) <= SMALL
        more = filled(_made_up(network, leaves, seed=1)) if alone and cheap else None
        return cls(model, channels, (values, tuple(leaves)), more, structure)

    def of(self, cut: Cut, surgery: Surgery, pruned: nn.Module) -> Finding:
        """Compares a pruned network with what the plan says.

        Args:
            cut: who leaves.
            surgery: what was done to the dense network.
            pruned: the network, a module or a program; it is not changed, and a copy runs.
        """
        network = self.channels.reading.network
        if any(operator_of(node) in _RANDOM for node in network.nodes):
            return Finding(unchecked="the network draws random numbers in evaluation mode")
        if any(tensor.is_meta for tensor in pruned.parameters()):
            return Finding(unchecked="its tensors have no data")
        finding = Finding()
        for inputs in self.inputs:
            pair = _Pair(self, cut, surgery, pruned, inputs)
            try:
                distance = pair.distance(working_precision(self.model))
                return Finding() if distance <= CLOSE else pair.judged(distance)
            except DifferentError as difference:
                return Finding(problem=str(difference))
            except IncomparableError as reason:
                finding = Finding(unchecked=str(reason))
        return finding

    def without(self, cut: Cut) -> Finding:
        """The same of the network that channels have left plainly, in its own class."""
        surgery = plan_surgery(cut, self.model)
        pruned = private_copy(self.model)
        operation.apply(pruned, surgery)
        return self.of(cut, surgery, pruned)


@dataclass(frozen=True)
class _Pair:
    """The dense network without the channels that leave, and the pruned one, on the same inputs."""

    trial: Trial
    cut: Cut
    surgery: Surgery
    pruned: nn.Module
    inputs: Sequence[Any]

    def judged(self, distance: float) -> Finding:
        """Whether a distance in single precision is more than amplified rounding."""
        exact = self._in_double()
        if exact <= ROUNDING if exact is not None else distance <= TOLERATED:
            return Finding()
        return Finding(
            problem=f"its results differ by {exact or distance:.2g} (relative) from those of the "
            "dense network without the channels that leave"
        )

    def distance(self, precision: torch.dtype) -> float:
        """Between the two networks' results, relative: the largest of all results."""
        copy = self._to_be_run(precision)
        wanted, found = self._results(self.inputs, copy, precision)
        more = self.trial.more
        if more is None or self.inputs is not self.trial.inputs[0]:
            return compared(wanted, found)
        both = zip((wanted, found), self._results(more, copy, precision), strict=True)
        return compared(*([joined(*pair) for pair in zip(*each, strict=True)] for each in both))

    def _to_be_run(self, precision: torch.dtype) -> Callable[..., Any]:
        """A copy of the pruned network in a precision.

        Where its code asks for half precision itself, as a program of a network in it does,
        rounding would hide what differs, or operators refuse two types: those of its trace run
        instead, at that precision throughout.
        """
        written = isinstance(self.pruned, Program) and self.trial.is_half
        if not self.trial.asks_for_half and not written:
            return _copy_in(self.pruned, precision)
        pairs = zip(self.inputs, self.trial.examples, strict=True)
        inputs = [x.to(e.dtype) if isinstance(x, Tensor) else x for x, e in pairs]  # as it reads it
        args, kwargs = pytree.tree_unflatten(inputs, self.trial.structure)
        try:
            refuse_inputs(self.pruned, kwargs or args)
            network = trace(self.pruned, kwargs or args)
        except BequestError as error:
            raise DifferentError(f"it does not run: {error}") from error
        traced = Traced(network, named_tensors(self.pruned), device_of(self.pruned), precision)

        def run(*args: Any, **kwargs: Any) -> list[Any]:
            leaves = pytree.tree_leaves((args, kwargs))
            return traced.run([one for one in leaves if isinstance(one, Tensor)])

        return run

    @torch.no_grad()
    def _results(
        self, values: Sequence[Any], copy: Callable[..., Any], precision: torch.dtype
    ) -> tuple[list[Any], list[Any]]:
        """What the dense network returns without the channels, and what the pruned one does."""
        inputs = [_in_precision(value, precision) for value in values]
        args, kwargs = pytree.tree_unflatten(inputs, self.trial.structure)
        wanted = self._wanted(inputs, precision)
        try:
            return wanted, pytree.tree_leaves(copy(*args, **kwargs))
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            raise DifferentError(f"it does not run: {why}") from error

    def _wanted(self, inputs: Sequence[Any], precision: torch.dtype) -> list[Any]:
        dense = named_tensors(self.trial.model)
        masked = Masked(self.cut, self.surgery, dense, self.pruned, precision)
        try:
            return masked.run([value for value in inputs if isinstance(value, Tensor)])
        except Exception as error:  # whatever an operator says to values that were made up
            why = " ".join(str(error).split())[:200]
            raise IncomparableError(f"the dense network does not run: {why}") from error

    def _in_double(self) -> float | None:
        """The distance in double precision; None where the network doesn't run in it."""
        if sum(parameter.nbytes for parameter in self.trial.model.parameters()) > LARGEST:
            return None
        try:
            return self.distance(torch.float64)
        except (DifferentError, IncomparableError):  # its code has numbers of a type of its own
            return None


def _made_up(network: Network, leaves: Sequence[Any], seed: int) -> list[Tensor]:
    """Normal numbers, rows of the tables that whole numbers are looked up in, else the examples."""
    tensors = [one for one in leaves if isinstance(one, Tensor)]
    try:
        tables = vocabularies(network)
    except UsageError:  # it can't be told what whole numbers mean
        tables = [None] * len(tensors)
    generator = torch.Generator("cpu").manual_seed(seed)
    made = []
    for example, rows in zip(tensors, tables, strict=True):
        shape = tuple(example.shape)
        if example.is_floating_point():
            values = torch.randn(shape, generator=generator, device="cpu")
        elif rows is not None:
            values = torch.randint(rows, shape, generator=generator, device="cpu")
        else:
            values = example.detach()
        made.append(values.to(example.device, example.dtype))
    return made


def _in_precision(value: Any, precision: torch.dtype) -> Any:
    real = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(precision) if real else value


def _copy_in(model: nn.Module, precision: torch.dtype) -> nn.Module:
    """A private copy, its real numbers in a precision that is at least that of the model."""
    copy = private_copy(model)
    floating = [t for t in named_tensors(copy).values() if t.is_floating_point()]
    if any(tensor.dtype in HALF for tensor in floating) or precision == torch.float64:
        copy = copy.to(precision)
    return copy

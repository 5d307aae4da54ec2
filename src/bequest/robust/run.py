"""The state of a progressive pruning: the layers, what is left of them, what it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bequest.artifact.plan import Refusal
from bequest.calibration.samples import Samples
from bequest.calibration.subject import Subject
from bequest.call import Call
from bequest.execution.copies import duplicate, private_copy
from bequest.graph.chains import bind
from bequest.graph.groups import Channels, Group, group
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.restorers.base import Attempt, Restored
from bequest.restorers.srinivas2015sum import Sum
from bequest.robust.annealing import Informed, Strategy, scores
from bequest.robust.bounds import EFFORT, Bounds
from bequest.robust.folding import folded
from bequest.robust.impact import Values, certified_change, output_of, values
from bequest.robust.inputs import InputRange, intervals_of, one_input
from bequest.robust.intervals import Interval
from bequest.robust.merging import Heirs, Layer
from bequest.robust.records import Decision
from bequest.robust.rules import rule_of
from bequest.robust.shapes import as_replaced, dense_shaped
from bequest.robust.twins import Weights
from bequest.selection.bearing import try_out
from bequest.selection.candidates import asked_for, held_by_output, is_classifier
from bequest.selection.ratio import Ratio, kept_count
from bequest.surgery import operation
from bequest.surgery.cut import Chosen, Cut
from bequest.surgery.cuts import plan_surgery
from bequest.surgery.operation import can_hold_bias
from bequest.surgery.tryout import Trial


@dataclass(frozen=True)
class Pace:
    """How the steps are taken.

    Attributes:
        step: share of a layer that leaves in one step.
        strategy: chooses the pairs that merge.
        alpha: weight of the width in their scores.
    """

    step: float
    strategy: Strategy
    alpha: float


class Run:
    """A network on its way to fewer channels.

    The network is analysed in a copy in which every layer has a bias, of zeros where it had none:
    a restorer may write one there.

    Args:
        model: the dense model; it is not changed.
        example_inputs: as given.
        input_range: lowest and highest value of the inputs.
        pace: how the steps are taken.
        call: ratio, restorer and seed.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        input_range: InputRange,
        pace: Pace,
        call: Call,
    ) -> None:
        example = one_input(example_inputs)
        self.pace, self.call = pace, call
        dense = private_copy(model)
        self.random = np.random.default_rng(call.seed)
        self.inputs = intervals_of(example, input_range)
        samples = _samples(call, dense, example, input_range)
        fed = example if samples is None else samples.shaped_like(example)
        channels = group(read(trace(model, fed)))
        self.subject = Subject(model, dense, example_inputs, fed, channels, samples)
        self.biased = _with_biases(model)
        self.analysed = group(read(trace(self.biased, example)))
        output_of(self.analysed.reading.network)
        self.dense = {
            name: tensor.detach().double() if tensor.is_floating_point() else tensor.detach()
            for name, tensor in named_tensors(self.biased).items()
        }
        self.refused: list[Refusal] = []
        self.notes: dict[str, None] = {}
        self.layers = self._bearable(list(self._candidates(call.shares)), example)
        self.first = self._values(self.dense)

    @property
    def removed(self) -> float:
        """Share of the channels of all layers that have left."""
        total = sum(layer.group.size for layer in self.layers)
        return sum(layer.removed for layer in self.layers) / max(1, total)

    @property
    def count(self) -> int:
        """How many steps it takes."""
        return max((ceil(layer.target / layer.most) for layer in self.layers), default=0)

    def _candidates(self, ratio: Ratio) -> Iterator[Layer]:
        """The layers that the call asks for and that can be pruned step by step."""
        asked, idle = asked_for(self.analysed, ratio)
        for member, share, pattern in asked:
            if pattern is None and is_classifier(self.analysed, member):
                continue
            bound = bind(self.analysed, member, self.dense)
            reason = _reason_to_stay(self.analysed, member)
            if reason is not None:
                self.refused.append(Refusal(member.name, member.size, reason))
                continue
            target = member.free - kept_count(member.free, share, 1)
            if target:
                most = max(1, ceil(self.pace.step * member.size - 1e-6))
                yield Layer(member, bound, self.analysed, target, most)
        self.refused.extend(idle)

    def _bearable(self, layers: list[Layer], example: Any) -> list[Layer]:
        """The layers that the model's code bears to shrink, each tried out by itself."""
        if self._problem(layers, example) is None:
            return layers
        found = []
        for layer in layers:
            problem = self._problem([layer], example)
            if problem is None:
                found.append(layer)
                continue
            reason = f"the model's code does not run at another width as planned: {problem}"
            self.refused.append(Refusal(layer.group.name, layer.group.size, reason))
        return found

    def _problem(self, layers: list[Layer], example: Any) -> str | None:
        chosen, random = [], np.random.default_rng(0)
        for layer in layers:  # others in each, as what must leave together would by chance
            keep = np.ones(layer.group.size, bool)
            free = random.permutation(np.flatnonzero(~layer.group.fixed))
            keep[free[: layer.target]] = False
            chosen.append(Chosen(layer.group, keep))
        problem = try_out(self.biased, example, self.analysed, chosen)
        if problem is not None:
            return problem
        trial = Trial.over(self.biased, self.analysed, example)
        return trial.without(Cut.of(self.analysed, chosen)).problem

    def step(self, restored: Restored) -> list[Decision]:
        """Merges or drops channels in every layer that has not reached its target.

        Args:
            restored: the network as it is.
        """
        held = self._values(self._current(restored))
        temperature = 1 - self.removed
        decisions: list[Decision] = []
        for layer in self.layers:
            wanted = layer.wanted()
            if layer.merges and wanted:
                decisions += self._merge(layer, wanted, held, temperature)
            elif wanted:
                gone = layer.weakest(wanted)
                layer.drop(gone)
                decisions += [Decision(layer.group.name, None, c, None, None, True) for c in gone]
        return decisions

    def _merge(self, layer: Layer, wanted: int, held: Values, temperature: float) -> list[Decision]:
        strategy, name = self.pace.strategy, layer.group.name
        informed = strategy if isinstance(strategy, Informed) else None
        sizes = None if informed is None else layer.sensitivities(held)
        candidates = layer.candidates(strategy.recursive, layer.loads() if sizes is None else sizes)
        wanted = min(wanted, len(candidates))
        found: list[float] = []
        impacts = None
        if informed is not None and sizes is not None:
            pool = candidates[: informed.pool(wanted, len(candidates))]
            impacts = layer.impacts([pair for pair, _ in pool], held)
        if informed is not None and impacts is not None and impacts.bounded:
            candidates, found = pool, scores(impacts, self.pace.alpha)
            chosen = informed.choose(found, wanted, temperature, self.random)
        else:
            candidates, chosen = candidates[:wanted], list(range(wanted))
        if informed is not None and not found:
            self.notes.setdefault(
                f"{name}: chosen by saliency alone, as the impact on the output can't be bounded "
                f"(operators without an interval rule: {', '.join(held.gaps)})"
            )
        layer.merge([candidates[place][0] for place in chosen])
        return [
            Decision(name, *pair, saliency, found[place] if found else None, place in chosen)
            for place, (pair, saliency) in enumerate(candidates)
        ]

    def restored(self) -> Restored:
        """The pruned network as it is now, restored from the dense one."""
        originals = {member.name: member for member in self.subject.channels.groups}
        chosen = [
            Chosen(originals[layer.group.name], layer.alive)
            for layer in self.layers
            if layer.removed
        ]
        restorer = self.call.restorer
        if isinstance(restorer, Sum):  # not to the nearest channel, but to the one it merged into
            restorer = Heirs({one.group.name: one.heir for one in self.layers})
        return restorer.restore(Attempt(self.subject, chosen, self.call.seed))

    def certified(self, restored: Restored) -> tuple[Interval, tuple[str, ...]]:
        """What pruning changes at the output, and the operators at which no bound is known."""
        tensors = self._current(restored)
        if isinstance(self.call.restorer, Sum):
            tensors = as_replaced(self.analysed, self.layers, self.dense, tensors)
        return certified_change(self.first, self._values(tensors))

    def tightened(self, restored: Restored, change: Interval) -> Interval:
        """The same met with what back-substitution says of the whole range, where it can."""
        network = self.analysed.reading.network
        sides = (
            folded(self.analysed.reading, one) for one in (self.dense, self._current(restored))
        )
        pairs = zip(*(one.items() for one in sides), strict=True)
        weights = {
            name: Weights(first, first if torch.equal(first, second) else second)
            for (name, first), (_, second) in pairs
        }
        boxes = [Interval(one.lower[None], one.upper[None]) for one in self.inputs]
        with torch.no_grad():
            bounds = Bounds(network, weights, 1, boxes[0].lower.device, EFFORT)
            bounds.interpret(boxes)
            found = bounds.change_of(output_of(network))
        return change.meet(Interval(found.lower[0], found.upper[0]))

    def _current(self, restored: Restored) -> dict[str, Tensor]:
        chosen = [Chosen(layer.group, layer.alive) for layer in self.layers]
        surgery = plan_surgery(Cut.of(self.analysed, chosen), self.biased)
        return dense_shaped(self.dense, named_tensors(restored.model), surgery)

    def _values(self, tensors: Mapping[str, Tensor]) -> Values:
        reading = self.analysed.reading
        with torch.no_grad():
            return values(reading.network, folded(reading, tensors), self.inputs)


def _reason_to_stay(channels: Channels, member: Group) -> str | None:
    blocked = any(one.groups > 1 or one.weight is None for one in member.consumers)
    reasons = {
        held_by_output(channels, member): member.is_output,
        "; ".join(member.reasons): member.free == 0,
        "it is a residual stream, whose channels several layers write": member.kind == "residual",
        "it has a single channel": member.size == 1,
        "its channels fall into blocks that keep equal numbers": member.blocks is not None,
        "a grouped or computed layer reads its channels": blocked,
        "a norm over its channels is written out: no bound is known": _is_written(channels, member),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _is_written(channels: Channels, member: Group) -> bool:
    """Whether a norm over the channels is written out in operators that have bounds of their own.

    They look at the network in its dense shapes, where a mean counts channels that have left.
    """
    return any(
        rule_of(node) is not None and bool((channels.positions(member, labels) >= 0).any())
        for node, labels in channels.reading.normalised.items()
    )


def _with_biases(model: nn.Module) -> nn.Module:
    """A copy whose layers all have a bias."""
    biased = duplicate(model).eval()
    for name, module in biased.named_modules():
        if can_hold_bias(biased, name) and module.bias is None:
            operation.add_bias(biased, name)
    return biased


def _samples(call: Call, model: nn.Module, example: Any, input_range: InputRange) -> Samples | None:
    """What a regression is fed: inputs within the range, where that is one for all of them."""
    if not call.restorer.reads_inputs:
        return None
    source = call.restorer.inputs()
    if not any(isinstance(end, Tensor) for end in input_range):
        low, high = (float(end) for end in input_range)
        source = source.within((low, high))
    return source.make(model, example, call.seed)

"""As much as can be pruned while the network keeps giving its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bequest.calibration.samples import Samples
from bequest.config import register
from bequest.errors import UsageError
from bequest.execution.running import evaluation_mode, placed, run
from bequest.graph.inputs import mapped
from bequest.selection.allocation import Allocation, largest, mean_part
from bequest.selection.targets.base import Met, Search, Target
from bequest.selection.widths import Choice


@register("target", "agreement")
@dataclass(frozen=True)
class Agreement(Target):
    """To that share of inputs the pruned network gives the dense one's answer."""

    def meet(self, search: Search) -> Met:
        """Bisects the price of a channel over restored networks."""
        subject = search.subject
        samples = subject.samples
        assert samples is not None

        def agrees(asked: Sequence[Choice]) -> bool:
            network = search.restoration.cut(search.chosen(asked)).model
            found = agreement(subject.dense, network, samples, subject.inputs)
            return found >= self.value

        allocation = Allocation(
            search.choices, subject.channels, subject.dense, mean_part, search.bundles
        )
        return Met(largest(allocation, agrees))


@torch.no_grad()
def agreement(dense: nn.Module, pruned: nn.Module, samples: Samples, example_inputs: Any) -> float:
    """Share of inputs to which two networks give the same answer: the same largest output.

    Args:
        dense: a network.
        pruned: another.
        samples: what both are given.
        example_inputs: in whose places the samples are arguments.

    Raises:
        UsageError: the network's output is not a tensor of (inputs, classes, ...).
    """
    same = total = 0
    with evaluation_mode(dense), evaluation_mode(pruned):
        for number in range(len(samples.chunks)):
            inputs = samples.shaped_like(example_inputs, number)
            answers = [_answer(model, inputs) for model in (dense, pruned)]
            same += int((answers[0] == answers[1]).sum())
            total += answers[0].numel()
    return same / total


def _answer(model: nn.Module, inputs: Any) -> Tensor:
    output = run(model, mapped(placed(inputs, model), Tensor.clone))  # code may write into it
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise UsageError(
            "target 'agreement': expected a network whose output is one tensor of (inputs, "
            f"classes, ...), found {type(output).__name__}; use a target of params or macs"
        )
    return output.argmax(1)

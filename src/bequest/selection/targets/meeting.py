"""Meets a target for the whole network: asks the allocation, measures, corrects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from bequest.calibration.samples import Samples
from bequest.errors import UsageError
from bequest.execution.running import evaluation_mode, placed, run
from bequest.graph.groups import Channels
from bequest.graph.inputs import mapped, normalise_inputs
from bequest.graph.trace import meta_copy, named_tensors, to_meta
from bequest.measure.cost import Cost, cost, count_macs, stored_size
from bequest.selection.allocation import Allocation, largest, within_budget
from bequest.selection.choosing import Choice
from bequest.selection.planning import Wish, chosen_from
from bequest.surgery import operation
from bequest.surgery.cut import Chosen, Cut
from bequest.surgery.cuts import plan_surgery


@dataclass(frozen=True)
class Subject:
    """The dense network, its groups, and inputs to compare answers on.

    Attributes:
        model: the dense network.
        channels: its groups.
        samples: what it is given.
        inputs: the example in whose places they are arguments.
    """

    model: nn.Module
    channels: Channels
    samples: Samples
    inputs: Any


def meet(
    wish: Wish,
    choices: Sequence[Choice],
    subject: Subject,
    restored: Callable[[list[Chosen]], nn.Module],
) -> list[Choice]:
    """The choices with the ratios by which the target is met.

    Args:
        wish: the checked call, with a target.
        choices: groups with scores and predicted losses.
        subject: the network that is to meet it.
        restored: gives the pruned and restored network of a selection.

    Raises:
        UsageError: it can't be met.
    """
    assert wish.target is not None
    if not choices:
        raise UsageError(f"target {wish.target}: no group of this network can lose channels")
    value = wish.target.value
    sizes = {name: value.numel() for name, value in subject.model.named_parameters()}
    allocation = Allocation(choices, subject.channels, sizes, wish.target.kind)
    if wish.target.kind == "agreement":

        def agrees(asked: Sequence[Choice]) -> bool:
            network = restored(chosen_from(asked, wish))
            found = agreement(subject.model, network, subject.samples, subject.inputs)
            return found >= value

        return largest(allocation, agrees)
    kind = wish.target.kind
    before = _cost_after(subject.model, Cut.of(subject.channels), kind)

    def share(asked: Sequence[Choice]) -> float:
        cut = Cut.of(subject.channels, chosen_from(asked, wish))
        return _cost_after(subject.model, cut, kind) / before

    return within_budget(allocation, share, value)


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


def cost_without_data(model: nn.Module, example_inputs: Any) -> Cost:
    """Counted on a copy without data where the model runs without; bytes are those of the data."""
    try:
        args, kwargs = to_meta(normalise_inputs(example_inputs))
        counted = cost(meta_copy(model), kwargs or args)
        return replace(counted, bytes=stored_size(model))
    except Exception:
        return cost(model, example_inputs)


def _answer(model: nn.Module, inputs: Any) -> Tensor:
    output = run(model, mapped(placed(inputs, model), Tensor.clone))  # code may write into it
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise UsageError(
            "target 'agreement': expected a network whose output is one tensor of (inputs, "
            f"classes, ...), found {type(output).__name__}; use a target of params or macs"
        )
    return output.argmax(1)


def _cost_after(dense: nn.Module, cut: Cut, kind: str) -> int:
    """Parameters or multiply-accumulates that are left; counted on tensors without data.

    Multiply-accumulates are those of the graph: the model's code may not bear other widths.
    """
    model = meta_copy(dense)
    operation.apply(model, plan_surgery(cut, dense))
    if kind == "params":
        return sum(parameter.numel() for parameter in model.parameters())
    return count_macs(lambda: _run_operators(cut, named_tensors(model)))


def _run_operators(cut: Cut, tensors: Mapping[str, Tensor]) -> None:
    """The operators of the graph at their new widths, on tensors without data."""
    network, values = cut.channels.reading.network, dict[fx.Node, Any]()
    for node in network.nodes:
        if node.op == "placeholder":
            held = tensors.get(network.tensors.get(node.name, ""), node.meta.get("val"))
            values[node] = held.to("meta") if isinstance(held, Tensor) else held
        elif node.op == "call_function":
            args = list(fx.map_arg(node.args, values.__getitem__))
            kwargs = dict(fx.map_arg(node.kwargs, values.__getitem__))
            if kwargs.get("device") is not None:
                kwargs["device"] = "meta"
            values[node] = node.target(*cut.arguments(node, args), **kwargs)  # type: ignore[operator]

"""What pruning can change at the outputs, proven: over all inputs, or around given ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bequest.errors import ModelError, UsageError
from bequest.execution.copies import duplicate
from bequest.execution.modes import in_plain_mode
from bequest.graph.inputs import normalise_inputs, tensors_of, with_tensors
from bequest.robust.aligned import Aligned, aligned, module_of_pruned
from bequest.robust.bounds import EFFORT, Bounds, apart
from bequest.robust.impact import output_of
from bequest.robust.inputs import InputRange, ends_of, within
from bequest.robust.intervals import Interval

TOGETHER = 2**22
"""Numbers of all values of the boxes that are looked at together."""

ENDS = ("lower", "upper")


@dataclass(frozen=True)
class Certificate:
    """What is proven of a pruned network beside the dense one.

    Attributes:
        lower: float64; over one box of inputs of one output's shape, else with the inputs in front.
            The pruned network's output minus the dense one's is no less, for every input in the
            box, in exact arithmetic.
        upper: it is no more.
        agrees: (inputs,): whether both networks provably give the dense network's class of the
            input all over its box; None where outputs are no classes, (B, K) with K ≥ 2.
        unbounded: operators without a rule, by place: ends behind them are infinite.
        loose: operators that intervals alone pass, by place.
    """

    lower: Tensor
    upper: Tensor
    agrees: Tensor | None
    unbounded: tuple[str, ...]
    loose: tuple[str, ...]

    @property
    def agreement(self) -> float | None:
        """Certified agreement: the share of inputs that provably get the same class."""
        return None if self.agrees is None else float(self.agrees.double().mean())


@in_plain_mode
def certify(
    dense: nn.Module,
    pruned: Any,
    inputs: Any,
    eps: float | Tensor | None = None,
    input_range: InputRange = (0, 1),
    steps: int = 0,
) -> Certificate:
    """Bounds what pruning changes, and counts the inputs that provably keep their class.

    Linear functions of the input bound the *difference* of the two networks, carried back through
    the traced graph operator by operator (docs/robustness.md), and intervals where that is too
    much work. Channels that left, merged or were restored are alike: both networks are looked at in
    the graph of the dense one, aligned by the plan. Networks without a plan in common are bounded
    as two networks that read the same input. Nothing is changed.

    Args:
        dense: the dense network.
        pruned: what :func:`bequest.prune` or :func:`bequest.robust.prune` returned, a network that
            was pruned or loaded, or any network that reads and gives the same.
        inputs: floating-point tensors (N, ...), as for the network; where ``eps`` is None their
            shapes alone matter.
        eps: the box around each input, in the units of the inputs: a number, or a tensor that
            broadcasts to them. None = one box, all inputs in the range.
        input_range: lowest and highest value of an input, likewise.
        steps: of gradient descent on the lines that bound each row. 0 takes the closest lines; 10
            make bounds of large boxes 10 to 30 % tighter, in about ten times the time.

    Raises:
        UsageError: inputs, eps, steps or the range are wrong, or don't fit each other.
        ModelError: a network can't be exported, or returns several tensors or another shape than
            the other one.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise UsageError(f"steps: expected a whole number ≥ 0, found {steps!r}")
    given = _checked(inputs)
    boxes = _boxes(given, eps, input_range)
    module = module_of_pruned(pruned)
    pair = aligned(dense, pruned, inputs)
    networks = [pair] if pair else [Aligned.alone(one, inputs) for one in (dense, module)]
    shapes = {tuple(output_of(one.network).meta["val"].shape) for one in networks}
    if len(shapes) > 1:
        raise ModelError(f"expected outputs of one shape, found {' and '.join(map(str, shapes))}")
    (shape,) = shapes
    winners = None
    if eps is not None and len(shape) == 2 and shape[1] > 1:
        winners = _classes(dense, inputs)
    together = max(1, TOGETHER // max(_numbers(one) for one in networks))
    found = []
    with torch.no_grad():
        for part in torch.split(torch.arange(len(boxes[0].lower)), together):
            chosen = [Interval(one.lower[part], one.upper[part]) for one in boxes]
            ahead = None if winners is None else winners[part]
            found.append(_examined(networks, chosen, ahead, steps))
    change = torch.stack([_joined(getattr(one.change, end) for one in found) for end in ENDS])
    lower, upper = change if eps is not None else change[:, 0]
    return Certificate(
        lower,
        upper,
        None if winners is None else torch.cat([one.lead > 0 for one in found]),
        tuple(dict.fromkeys(place for one in found for place in one.gaps)),
        tuple(dict.fromkeys(place for one in found for place in one.loose)),
    )


def certified_change(
    dense: nn.Module,
    pruned: Any,
    inputs: Any,
    eps: float | Tensor | None = None,
    input_range: InputRange = (0, 1),
    steps: int = 0,
) -> tuple[Tensor, Tensor]:
    """What pruning can change at the outputs: lower ≤ pruned(x) − dense(x) ≤ upper.

    The arguments and errors are those of :func:`certify`, which says more.

    Returns:
        float64 (N, *one output's shape), for all x in the box around each input; without ``eps``
        of one output's shape, for all x in the range.

    Raises:
        ModelError: also where nothing can be bounded, which names the operators.
    """
    found = certify(dense, pruned, inputs, eps, input_range, steps)
    if found.unbounded and not bool(found.lower.isfinite().all() & found.upper.isfinite().all()):
        raise ModelError(
            f"certified_change: no rule for {', '.join(found.unbounded)}; nothing can be proven of "
            "what lies behind"
        )
    return found.lower, found.upper


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """Boxes of all chunks, without the batch of one."""
    return torch.cat(list(parts))[:, 0]


@dataclass(frozen=True)
class _Examined:
    """What was found for some boxes: (boxes, 1, *shape of an output), and (boxes,)."""

    change: Interval
    lead: Tensor
    gaps: tuple[str, ...]
    loose: tuple[str, ...]


def _examined(
    networks: Sequence[Aligned], boxes: Sequence[Interval], winners: Tensor | None, steps: int
) -> _Examined:
    """What the closest lines say, met with what descent makes of them: neither need be tighter."""
    plain = _bounded(networks, boxes, winners, 0)
    if not steps:
        return plain
    found = _bounded(networks, boxes, winners, steps)
    lead = torch.maximum(plain.lead, found.lead)
    return replace(plain, change=plain.change.meet(found.change), lead=lead)


def _bounded(
    networks: Sequence[Aligned], boxes: Sequence[Interval], winners: Tensor | None, steps: int
) -> _Examined:
    count, device = len(boxes[0].lower), boxes[0].lower.device
    bounds = []
    for one in networks:
        bounds.append(Bounds(one.network, one.weights, count, device, EFFORT * count, steps))
        bounds[-1].interpret(boxes)
    outputs = [output_of(one.network) for one in networks]
    if len(bounds) == 1:
        change = bounds[0].change_of(outputs[0])
    else:
        change = apart((bounds[0], outputs[0]), (bounds[1], outputs[1]))
    lead = torch.zeros(count, dtype=torch.float64, device=device)
    if winners is not None:
        ahead = [one.lead(end, winners) for one, end in zip(bounds, outputs, strict=True)]
        lead = torch.stack(ahead).amin(0)
    return _Examined(
        change,
        lead,
        tuple(place for one in bounds for place in one.gaps),
        tuple(place for one in bounds for place in one.loose),
    )


def _checked(inputs: Any) -> list[Tensor]:
    given = tensors_of(normalise_inputs(inputs))
    if not all(one.is_floating_point() and one.ndim for one in given):
        raise UsageError(
            "certify: expected inputs of floating-point numbers, which have a range, found "
            f"{', '.join(str(one.dtype) for one in given)}"
        )
    if len({len(one) for one in given}) > 1 or not len(given[0]):
        raise UsageError(
            "certify: expected tensors with one row per input, at least one, found the shapes "
            f"{', '.join(str(tuple(one.shape)) for one in given)}"
        )
    return [one.detach().double() for one in given]


def _boxes(
    given: Sequence[Tensor], eps: float | Tensor | None, input_range: InputRange
) -> list[Interval]:
    """The box around each input, of batch size one: (N, 1, ...); of one input the whole range."""
    found = []
    for one in given if eps is not None else [one[:1] for one in given]:
        low, high = (end.expand_as(one) for end in ends_of(input_range, one))
        if eps is not None:
            x = within(one, low, high)
            reach = _reach(eps, one)
            around = Interval(x, x) + Interval(-reach, reach)
            low, high = torch.maximum(around.lower, low), torch.minimum(around.upper, high)
        found.append(Interval(low[:, None].contiguous(), high[:, None].contiguous()))
    return found


def _reach(eps: float | Tensor, like: Tensor) -> Tensor:
    try:
        if torch.as_tensor(eps).dtype == torch.bool:
            raise TypeError
        reach = torch.as_tensor(eps, dtype=like.dtype, device=like.device).expand_as(like)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"eps: expected a number, or a tensor that broadcasts to inputs of shape "
            f"{tuple(like.shape)}, found {eps!r}"
        ) from error
    wrong = reach[~(reach.isfinite() & (reach >= 0))]
    if wrong.numel():
        raise UsageError(f"eps: expected finite numbers ≥ 0, found {float(wrong[0])}")
    return reach


def _classes(dense: nn.Module, inputs: Any) -> Tensor:
    """The dense network's class of each input."""
    args, kwargs = normalise_inputs(inputs)
    double = [one.double() for one in tensors_of((args, kwargs))]
    args, kwargs = normalise_inputs(with_tensors(kwargs or args, double))
    with torch.no_grad():
        found: Tensor = duplicate(dense).double().eval()(*args, **kwargs).argmax(1)
    return found


def _numbers(one: Aligned) -> int:
    """How many numbers all values of one box are."""
    values = (node.meta.get("val") for node in one.network.nodes if node.op == "call_function")
    return sum(value.numel() for value in values if isinstance(value, Tensor))

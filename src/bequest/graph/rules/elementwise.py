"""Rules for operators that treat every element alike, alone or together with a partner."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from bequest.graph.ledger import Labels, Layout
from bequest.graph.rules.base import Step, rule

HOMOGENEOUS = frozenset({"relu", "leaky_relu", "mul", "div", "abs", "neg"})
"""Activations with f(s·x) = s·f(x) for s > 0 (mul and div: by a number)."""

_ACTIVATIONS = (
    "relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish sigmoid hardsigmoid hardswish "
    "tanh softplus log_sigmoid log_sigmoid_forward threshold hardshrink softshrink logit clamp "
    "clamp_min clamp_max abs neg exp expm1 exp2 log log1p log2 log10 sqrt rsqrt reciprocal square "
    "sin cos tan "
    "asin acos atan sinh cosh asinh acosh atanh erf erfc round floor ceil trunc sign sgn frac "
    "nan_to_num bitwise_not logical_not isnan isinf"
).split()

_IDENTITIES = (
    "clone alias detach contiguous dropout alpha_dropout feature_dropout native_dropout "
    "_to_copy to type_as lift_fresh_copy lift_fresh positive"
).split()

_PARTNERS = (
    "add sub rsub mul div floor_divide remainder fmod maximum minimum pow atan2 where "
    "masked_fill lerp addcmul addcdiv eq ne lt le gt ge logical_and logical_or logical_xor "
    "bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__ copy xlogy hypot"
).split()

_CREATIONS = "zeros_like ones_like full_like empty_like rand_like randn_like bernoulli".split()
_CONSTANTS = (
    "zeros ones full arange empty linspace eye scalar_tensor new_zeros new_ones new_full".split()
)


@rule(*_ACTIVATIONS, role="activation")
def activation(step: Step) -> Layout | tuple[Layout, ...]:
    """The same function on every element: channels stay where they are."""
    layout = step.layout(step.operands()[0])
    values = step.node.meta["val"]
    return (layout,) * len(values) if isinstance(values, tuple | list) else layout


@rule(*_IDENTITIES, role="linear")
def identity(step: Step) -> Layout | tuple[Layout, ...]:
    """A copy, or dropout in evaluation mode."""
    return activation(step)


@rule(*_CREATIONS, role="join")
def creation(step: Step) -> Layout:
    """A new tensor of an operand's shape follows that operand's channels."""
    return step.layout(step.operands()[0])


@rule("_assert_tensor_metadata", "_assert_async", "_assert_scalar", role="join")
def assertion(step: Step) -> Layout:
    """Checks dtypes or values and yields nothing."""
    return Layout((), step.place)


@rule(*_CONSTANTS, role="join")
def constant(step: Step) -> Layout:
    """A tensor made by the code has the size that stands in the code."""
    return step.fixed()


@rule(*_PARTNERS, role="join")
def partners(step: Step) -> Layout:
    """Element by element with another tensor: both sides must lose the same channels.

    With a number in place of the other tensor the operator is an activation.
    """
    operands = step.operands()
    if len(operands) == 1 and len(step.node.all_input_nodes) == 1:
        once = sum(argument is operands[0] for argument in step.node.args) == 1
        step.reading.roles[step.node] = "activation" if once else "join"
    steady = any(operand in step.reading.steady for operand in operands)
    added = str(step.node.target).split(".")[1] in ("add", "sub", "rsub")
    layout = broadcast(step, operands, [step.layout(operand) for operand in operands])
    if added and len(operands) > 1 and not steady:
        step.ledger.streams.extend(labels for labels in layout.dims if labels is not None)
    return layout


@rule("prelu", role="activation")
def prelu(step: Step) -> Layout:
    """A slope for all channels, or one per channel that leaves with it."""
    data, slope = step.operands()
    layout, slopes = step.layout(data), step.layout(slope).dims[0]
    if slopes is not None:
        step.reading.roles[step.node] = "join"
        channels = layout.dims[1]
        if channels is None:
            step.freeze(slopes, f"acts on {layout.origin}")
        else:
            step.ledger.tie(channels, slopes)
    return layout


@rule("glu", role="join")
def gated(step: Step) -> Layout:
    """The first half of a dimension times the sigmoid of the second: pairs leave together."""
    layout = step.layout(step.operands()[0])
    dim = int(step.arg(1, "dim", -1)) % len(layout.dims)
    labels = layout.dims[dim]
    if labels is None:
        return layout
    first, second = labels.reshape(2, -1)
    step.ledger.tie(first, second)
    return layout.with_dims((*layout.dims[:dim], first, *layout.dims[dim + 1 :]))


def broadcast(step: Step, operands: Sequence[fx.Node], layouts: Sequence[Layout]) -> Layout:
    """Layout of an element-wise result; dimensions of size one stretch and tie nothing."""
    dims: list[Labels | None] = []
    for dim, size in enumerate(step.shape):
        met: list[Labels] = []
        fixed: str | None = None
        for operand, layout in zip(operands, layouts, strict=True):
            shape = operand.meta["val"].shape
            local = dim - (step.ndim - len(shape))
            if local < 0 or shape[local] != size:
                continue
            labels = layout.dims[local]
            if labels is None:
                fixed = layout.origin
            else:
                met.append(labels)
        dims.append(agreed(step, met, fixed))
    return Layout(tuple(dims), layouts[0].origin if layouts else step.place)


def agreed(step: Step, met: Sequence[Labels], fixed: str | None) -> Labels | None:
    """The labels of a dimension that several tensors share, of which ``fixed`` has none."""
    if not met:
        return None
    labels = step.ledger.join(met)
    if fixed is None:
        return labels
    step.hold(labels, f"is joined with {fixed}, whose channels are fixed")
    return None if step.ledger.is_loose(labels) else labels

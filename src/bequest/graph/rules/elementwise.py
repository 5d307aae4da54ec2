"""Rules for operators that treat every element alike, alone or together with a partner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import fx

from bequest.graph.branches import layers_between
from bequest.graph.ledger import Labels, Layout
from bequest.graph.rules.base import Step, rule, wall
from bequest.graph.trace import operator_of

_HOMOGENEOUS = frozenset(
    "relu leaky_relu prelu mul multiply div divide true_divide abs absolute neg negative".split()
)

_ACTIVATIONS = (
    "relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish sigmoid hardsigmoid hardswish "
    "tanh softplus log_sigmoid log_sigmoid_forward threshold hardshrink softshrink logit abs "
    "absolute neg negative exp expm1 exp2 log log1p log2 log10 sqrt rsqrt reciprocal square sin "
    "cos tan asin acos atan arcsin arccos arctan sinh cosh asinh acosh atanh erf erfc erfinv "
    "lgamma digamma i0 sinc deg2rad rad2deg round floor ceil trunc fix sign sgn frac nan_to_num "
    "bitwise_not logical_not isnan isinf isfinite"
).split()

_IDENTITIES = (
    "clone alias detach contiguous _to_copy to type_as lift_fresh_copy lift_fresh positive"
).split()

_DROPOUTS = "dropout alpha_dropout feature_dropout native_dropout".split()

_PARTNERS = (
    "add sub subtract rsub mul multiply div divide true_divide floor_divide remainder fmod maximum "
    "minimum fmax fmin pow float_power atan2 clamp clip clamp_min clamp_max masked_fill lerp "
    "addcmul addcdiv eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or "
    "bitwise_xor __and__ __or__ __xor__ copy xlogy hypot logaddexp logaddexp2 heaviside copysign"
).split()

_SUMS = frozenset({"add", "sub", "subtract", "rsub"})

_CREATIONS = "zeros_like ones_like full_like empty_like rand_like randn_like bernoulli fill".split()


def is_homogeneous(activation: fx.Node) -> bool:
    """Whether f(s·x) = s·f(x) for every s > 0; a product is one with a number."""
    rounded = activation.kwargs.get("rounding_mode") is not None
    return operator_of(activation) in _HOMOGENEOUS and not rounded


def is_copy(node: fx.Node) -> bool:
    """Whether a "linear" operator leaves every element what and where it is."""
    return operator_of(node) in (*_IDENTITIES, *_DROPOUTS)


@rule(*_ACTIVATIONS, role="activation")
def activation(step: Step) -> Layout | tuple[Layout, ...]:
    """The same function on every element: channels stay where they are."""
    layout = step.layout(step.operands()[0])
    values = step.node.meta["val"]
    if not isinstance(values, tuple | list):
        return layout
    rank = len(layout.dims)
    return tuple(layout if one.ndim == rank else step.fixed(one.shape) for one in values)


@rule(*_IDENTITIES, role="linear")
def identity(step: Step) -> Layout:
    """A copy; another tensor may lend its type."""
    data, *lenders = step.operands()
    step.ignore(lenders)
    return step.layout(data)


@rule(*_DROPOUTS, role="linear")
def dropout(step: Step) -> Layout | tuple[Layout, ...]:
    """A copy in evaluation mode; code that asks for noise there draws it element by element."""
    if step.arg(2, "train") is not False:
        step.reading.roles[step.node] = "join"
    return activation(step)


@rule(*_CREATIONS, role="join")
def creation(step: Step) -> Layout:
    """A new tensor of an operand's shape follows that operand's channels."""
    operands = step.operands()
    return broadcast(step, operands, [step.layout(operand) for operand in operands])


@rule("_assert_tensor_metadata", "_assert_async", "_assert_scalar", role="join")
def assertion(step: Step) -> Layout:
    """Checks dtypes or values and yields nothing."""
    step.ignore(step.operands())
    return Layout((), step.place)


@rule(*_PARTNERS, role="elementwise")
def partners(step: Step) -> Layout:
    """Element by element with other tensors: all sides must lose the same channels.

    With numbers in place of the other tensors the operator is an activation.
    """
    # What varies comes first: its labels are those that the result goes on with.
    operands = sorted(step.operands(), key=lambda one: one in step.reading.steady)
    if len(operands) == 1 and len(step.node.all_input_nodes) == 1:
        once = sum(argument is operands[0] for argument in step.node.args) == 1
        step.reading.roles[step.node] = "activation" if once else "elementwise"
    layout = broadcast(step, operands, [step.layout(operand) for operand in operands])
    if operator_of(step.node) in _SUMS:
        varying = [one for one in operands if one not in step.reading.steady]
        step.ledger.streams.extend(_added_into(step, varying, layout))
    return layout


def _added_into(step: Step, branches: Sequence[fx.Node], total: Layout) -> Iterator[Labels]:
    """The labels of a sum that several layers write.

    x + f(x) of one layer is a function of it, whichever of its channels meet, and a sum of linear
    maps of one tensor is a layer in several pieces: neither is a stream.
    """
    origins, sources = step.reading.origins, step.reading.sources
    if branches and frozenset.intersection(*(origins[one] for one in branches)):
        return
    for dim, labels in enumerate(total.dims):
        place = dim - step.ndim  # from the end, where branches of fewer dimensions are aligned
        there = [one for one in branches if len(one.meta["val"].shape) + place >= 0]
        whole = [one for one in there if one.meta["val"].shape[place] == step.shape[dim]]
        if labels is None or len(whole) < 2:
            continue
        held = [step.layout(branch).dims[place] for branch in whole]
        same = [one is not None and np.array_equal(one, labels) for one in held]
        written = {sources[branch] for branch in whole}
        single = len(written) == 1 and len(next(iter(written))) == 1
        if single or (all(same) and len(written) == 1):
            continue
        between = layers_between(step.reading, whole)
        if between is None:
            yield labels
        else:
            step.reading.inside.append((labels, between))


@rule("where", role="elementwise")
def where(step: Step) -> Layout | tuple[Layout, ...]:
    """Elements of one tensor or another; with a mask alone, the places where it holds."""
    return partners(step) if len(step.node.args) == 3 else wall(step)


@rule("prelu", role="activation")
def prelu(step: Step) -> Layout:
    """A slope for all channels, or one per channel that leaves with it."""
    data, slope = step.node.args
    assert isinstance(data, fx.Node)
    assert isinstance(slope, fx.Node)
    layout, slopes = step.layout(data), step.layout(slope).dims
    own = step.tensor_name(slope) is not None
    if not own or slope.meta["val"].numel() > 1:
        step.reading.roles[step.node] = "join"
    if slope.meta["val"].numel() > 1:
        follow(step, layout.dims[1], slopes[0], layout.origin)
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


def follow(step: Step, labels: Labels | None, slots: Labels | None, origin: str) -> None:
    """A vector with one entry per channel: ``slots`` leave with the channels ``labels``."""
    if labels is not None and slots is not None:
        step.ledger.tie(labels, slots)
    elif slots is not None:
        step.freeze(slots, f"acts on {origin}, whose channels are fixed")
    elif labels is not None and len(labels) > 1:
        step.freeze(labels, "meets a tensor with an entry per channel, whose channels are fixed")


def broadcast(step: Step, operands: Sequence[fx.Node], layouts: Sequence[Layout]) -> Layout:
    """Layout of an element-wise result."""
    return aligned(step, layouts, [tuple(operand.meta["val"].shape) for operand in operands])


def aligned(step: Step, layouts: Sequence[Layout], shapes: Sequence[tuple[int, ...]]) -> Layout:
    """Tensors side by side, last dimensions together: those of size one stretch and tie nothing."""
    dims: list[Labels | None] = []
    for dim, size in enumerate(step.shape):
        met: list[Labels] = []
        fixed: str | None = None
        for layout, shape in zip(layouts, shapes, strict=True):
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

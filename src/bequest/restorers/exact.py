"""Channels that can be handed on without any loss: constants, duplicates, positive multiples.

Weight space knows only the pre-activation, but for these three the activation keeps what holds
before it: f(c) is a constant, f(x) = f(x), and f(s·x) = s·f(x), s > 0, where f is homogeneous.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bequest.graph.units import Unit
from bequest.restorers.batch_norm import affine

TOLERANCE = 1e-6
"""Relative difference of rows up to which two channels are the same; float32 resolves 6e-8."""

NEGLIGIBLE = 1e-7
"""A filter under this share of the largest one's norm is zero."""

DEAD_GAMMA, DEAD_VARIANCE = 1e-4, 1e-6
"""A channel whose batch norm has abs(gamma) or running_var below these is constant. In units of
small weights they count relative to the largest, so that not all channels fall under them."""


def constants(unit: Unit) -> tuple[Tensor, Tensor]:
    """Which channels hardly depend on the input, and their values behind the activation.

    A zero filter leaves f(b̃), b̃ the bias with the batch norm folded; a batch norm with γ ≈ 0 or
    running_var ≈ 0 leaves f(β) whatever the filter.

    Returns:
        bool (n,) and float64 (n,); a value means something only where the channel is constant.
    """
    assert unit.activation is not None  # a restorable unit has one
    slope, level = affine(unit.producer)
    norms = slope.abs() * unit.producer.summed(torch.square).sqrt()
    constant = norms <= NEGLIGIBLE * norms.max()
    norm = unit.producer.norm
    if norm is not None:
        dead = _under(DEAD_GAMMA, norm.gamma.abs()) | _under(DEAD_VARIANCE, norm.var)
        level = torch.where(dead & ~constant, norm.beta, level)
        constant = constant | dead
    return constant, unit.activation.apply(level)


def _under(limit: float, values: Tensor) -> Tensor:
    return values < limit * values.max().clamp(max=1)


def multiples(unit: Unit, kept: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the removed channels that repeat a kept one, up to a positive factor if f allows it.

    Compares the rows [W̃; b̃] with the batch norm folded. The nearest kept row of each removed one
    is found through the Gram matrix; as the distances so computed lose half of the digits, the
    one candidate of each is then verified directly, filter and bias apart.

    Returns:
        int64 (r,): the position in ``kept`` of the channel that is repeated, −1 where there is
        none; float64 (r,): the factor, 1 where the activation is not homogeneous.
    """
    assert unit.activation is not None  # a restorable unit has one
    slope, biases = affine(unit.producer)
    product = torch.outer(biases[removed], biases[kept])
    for part in unit.producer.slices():
        rows = slope[:, None] * part
        product += rows[removed] @ rows[kept].T
    size = slope.square() * unit.producer.summed(torch.square)
    square = size + biases.square()
    if unit.activation.homogeneous:
        # Largest cosine; the removed row's own norm doesn't change which one it is.
        nearest = (product * square[kept].rsqrt().nan_to_num(posinf=0.0)).argmax(dim=1)
        overlap = product.gather(1, nearest[:, None])[:, 0]
        factor = (overlap / square[kept][nearest]).nan_to_num(posinf=0.0)
    else:
        nearest = (square[kept] - 2 * product).argmin(dim=1)
        factor = torch.ones_like(square[removed])
    partner = kept[nearest]
    gap = torch.zeros_like(factor)
    for part in unit.producer.slices():
        rows = slope[:, None] * part
        gap += (rows[removed] - factor[:, None] * rows[partner]).square().sum(dim=1)
    bias_gap = (biases[removed] - factor * biases[partner]).abs()
    same = (
        (factor > 0)
        & (gap.sqrt() <= TOLERANCE * size[removed].sqrt())
        & (bias_gap <= TOLERANCE * square[removed].sqrt())
    )
    return torch.where(same, nearest, -1), factor


class Exact(NamedTuple):
    """The exact part of a delivery: r removed channels, p kept ones."""

    matrix: Tensor
    """float64 (r, p); zero in the rows of the channels that are left to others."""
    offset: Tensor
    """float64 (r,), likewise."""
    rest: Tensor
    """int64: the rows that are left, as positions in ``removed``."""
    basis: Tensor
    """int64: the kept channels that are not constant, as positions in ``kept``."""


def hand_on_exactly(unit: Unit, kept: Tensor, removed: Tensor, repeats: bool) -> Exact:
    """Hands on what needs no approximation: constants and, with ``repeats``, repeated channels.

    The kept constant channel of largest value takes the removed constants up, which is exact even
    where consumers pad with zeros. Without one (or with one under a thousandth of what it would
    have to carry, which would blow up its own small variation) they become offsets for biases.
    """
    constant, value = constants(unit)
    value = torch.where(constant, value, 0.0)
    done, offset = constant[removed], value[removed]
    matrix = value.new_zeros(len(removed), len(kept))
    carrier = value[kept].abs().argmax()
    carried = value[kept][carrier]
    if carried.abs() > 1e-3 * offset.abs().max():
        matrix[:, carrier] = offset / carried
        offset = torch.zeros_like(offset)
    if repeats:
        partner, factor = multiples(unit, kept, removed)
        (found,) = (partner >= 0).nonzero(as_tuple=True)
        matrix[found], offset[found], done[found] = 0.0, 0.0, True
        matrix[found, partner[found]] = factor[found]
    (rest,) = (~done).nonzero(as_tuple=True)
    (basis,) = (~constant[kept]).nonzero(as_tuple=True)
    return Exact(matrix, offset, rest, basis)


def border_notes(unit: Unit, offset: Tensor) -> tuple[str, ...]:
    """Says so where offsets meet consumers that pad with zeros: not exact at the border."""
    padded = [consumer.name for consumer in unit.consumers if consumer.zero_padded]
    if not padded or not offset.any():
        return ()
    return (
        f"{int(offset.count_nonzero())} removed channels leave a constant to the biases of "
        f"{', '.join(padded)}, which reads zeros at its border or before its first step: not "
        "exact there",
    )

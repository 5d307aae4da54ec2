"""Rows that a layer reads, many at a time: which of them, how they are gathered, their products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bequest.calibration.layers import Call
from bequest.calibration.patches import outputs_at, patches, place_count
from bequest.execution.randomness import stream
from bequest.graph.geometry import Geometry

ROWS_PER_UNKNOWN = 128
"""Rows per input of a layer: more of them hardly tell more."""

AT_ONCE = 2**26
"""Bytes of rows that are gathered before their products are added to the sums."""


def gathered(
    geometry: Geometry,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    places: Tensor | None,
    shift: Tensor,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (g, m, d) and the outputs that go with them (g, m, o), of several chunks together.

    Args:
        geometry: of the operator.
        inputs: what it reads, by chunk.
        outputs: what goes with each of its output places, likewise.
        places: the output places that are looked at (:func:`sampled_places`); None = all.
        shift: (channels,), taken off the inputs.
    """
    held: list[tuple[Tensor, Tensor]] = []
    for pair in zip(inputs, outputs, strict=True):
        alone = pair[0].ndim < len(geometry.kernel) + 2  # one sample, without a batch
        x, output = (one[None] if alone else one for one in pair)
        count = place_count(geometry, output.shape) if places is None else len(places)
        row = len(shift) * math.prod(geometry.kernel) * x.itemsize
        for part in _parts(len(x), max(1, AT_ONCE // (count * row))):
            rows = patches(geometry, x[part], output.shape, places, shift)
            held.append((rows, outputs_at(geometry, output[part], places)))
            if sum(one.nbytes + other.nbytes for one, other in held) >= AT_ONCE:
                yield _joined(held)
    if held:
        yield _joined(held)


def gram(rows: Tensor) -> Tensor:
    """XᵀX, (…, d, d), of rows (…, n, d), with each pair of blocks multiplied only once."""
    half = rows.shape[-1] // 2
    if half < 64:  # smaller blocks multiply less efficiently than is saved
        return rows.mT @ rows
    left, right = rows[..., :half], rows[..., half:]
    product = rows.new_empty(*rows.shape[:-2], *2 * rows.shape[-1:])
    product[..., :half, :half] = gram(left)
    product[..., half:, half:] = gram(right)
    product[..., half:, :half] = right.mT @ left
    product[..., :half, half:] = product[..., half:, :half].mT
    return product


def sampled_places(call: Call, unknowns: int, seed: int) -> Tensor | None:
    """A random part of a layer's output places, where all of them are more than it takes.

    Args:
        call: of the layer.
        unknowns: number of inputs of each output.
        seed: of the draw.

    Returns:
        int64, ascending; None = all.
    """
    shape = call.dense[0].shape
    count = place_count(call.geometry, shape)
    samples = shape[0] * len(call.dense)
    wanted = -(-ROWS_PER_UNKNOWN * unknowns // samples)
    if wanted >= count:
        return None
    generator = stream(seed)
    places = torch.randperm(count, generator=generator, device="cpu")[:wanted].sort().values
    return places.to(call.dense[0].device)


def _joined(held: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What is held, rows one below the other, of one part without a copy; it is held no longer."""
    parts = held.copy()
    held.clear()
    rows, outputs = (
        one[0] if len(one) == 1 else torch.cat(one, 1) for one in zip(*parts, strict=True)
    )
    return rows, outputs


def _parts(length: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, length, size))

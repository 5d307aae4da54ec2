"""What the layers that read a group's channels see: their weights and the Gram of their inputs.

The dense network walks over the samples once; at each layer that reads channels of a wanted group
the Gram of its inputs is accumulated, chunk by chunk, in float64. A group is handed over as soon as
the last of its readers has been met, so that no more Grams are held than groups are under way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from bequest.calibration.layers import Call, Layer, as_applied
from bequest.calibration.moments import Moments
from bequest.calibration.rows import sampled_places
from bequest.calibration.samples import Samples
from bequest.calibration.walk import Walk
from bequest.graph.geometry import geometry_of
from bequest.graph.groups import Channels, Group
from bequest.graph.reading import Read
from bequest.graph.trace import operator_of
from bequest.graph.units import Reader
from bequest.surgery.cut import Cut


def calibrate(
    channels: Channels,
    groups: Sequence[Group],
    model: nn.Module,
    samples: Samples,
    visit: Callable[[Group, tuple[Reader, ...]], None],
    *,
    seed: int,
    show: bool,
) -> None:
    """Walks over the samples and hands every group its readers.

    Args:
        channels: the network's groups, traced at the batch size of the samples' chunks.
        groups: those that are wanted.
        model: the dense model, in evaluation mode and at least single precision.
        samples: what it is fed; batch norms take the samples' statistics if they're synthetic.
        visit: called once per group with all its readers. Grouped and transposed
            layers are not looked into; the tuple is empty where no other layer reads the group.
        seed: of the places of large maps that are looked at.
        show: a progress bar on a terminal.
    """
    wanted: dict[fx.Node, list[tuple[Group, Read]]] = defaultdict(list)
    left: dict[str, int] = {}
    for member in groups:
        reads = [r for r in member.consumers if r.weight and _looked_into(r)]
        left[member.name] = len(reads)
        for read in reads:
            wanted[read.node].append((member, read))
    found: dict[str, list[Reader]] = defaultdict(list)

    def meet(layer: Layer) -> None:
        for call in layer.calls:
            members = wanted.get(call.node, ())
            if not members:
                continue
            weight, covariance = _observed(walk, layer, call, seed)
            for member, read in members:
                owner = _owners(channels, member, read, weight)
                found[member.name].append(Reader(layer.name, weight, covariance, owner))
                left[member.name] -= 1
                if not left[member.name]:
                    del left[member.name]
                    visit(member, tuple(found.pop(member.name)))

    walk = Walk(Cut.of(channels), model, model)
    walk.run(
        samples.chunks,
        meet,
        self_calibrate=not samples.real,
        everywhere=True,
        title="observing",
        show=show,
    )
    for member in groups:
        if member.name in left:  # it has no readers, or some that the walk can't look into
            visit(member, ())


def _looked_into(read: Read) -> bool:
    """Whether a layer is neither grouped nor a transposed convolution."""
    turned = operator_of(read.node) == "linear" and geometry_of(read.node).transposed
    return read.groups == 1 and read.dim == (0 if turned else 1)


def _observed(walk: Walk, layer: Layer, call: Call, seed: int) -> tuple[Tensor, Tensor]:
    """A layer's weight (o, d) and the covariance of its inputs (d, d), 0 where they don't vary."""
    weight = walk.tensor(layer.weight)
    assert weight is not None
    moments = Moments(call.geometry, weight, walk.tensor(call.bias))
    places = sampled_places(call, moments.unknowns, seed)
    moments.look_at(call.geometry, call.inputs, call.dense, places)
    moments.check(layer.name)
    gram, _ = moments.centred()
    rows = as_applied(call.node, weight.detach())
    return rows.double().flatten(1), gram[0] / moments.rows


def _owners(channels: Channels, member: Group, read: Read, weight: Tensor) -> Tensor:
    positions = channels.positions(member, read.labels)
    each = weight.shape[1] // len(positions)
    return torch.from_numpy(np.repeat(positions, each)).to(weight.device)

"""The oracle of the rules: the cut network computes what the dense one does without the channels.

In the masked network the columns are zero where channels that left are read. What lies before may
do anything to the channels, as long as it does it to each alone. Where no layer reads them, their
rows are zero too, and what lies behind must make nothing of zeros.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import bequest
from bequest.graph.groups import Channels, group
from bequest.graph.reading import Write
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.pruning import Pruned


def plainly(model: nn.Module, inputs: Any, ratio: Any = 0.5, **more: Any) -> Pruned:
    """Channels leave at random, of every group, and nothing is handed on."""
    settings = {"criterion": "random", "groups": "all", "round_to": 1, "restorer": "none"}
    return bequest.prune(model, inputs, ratio, progress=False, **{**settings, **more})


def assert_reloaded_and_found(
    pruned: Pruned, dense: nn.Module, fresh: nn.Module, x: Any, folder: Path
) -> None:
    """A pruned network loads to the bit, and what left it is found in a network where it is dead.

    Args:
        pruned: what :func:`plainly` made.
        dense: the network whose removed channels are zero.
        fresh: an instance of the dense class.
        x: an input.
        folder: a new one.
    """
    pruned.save(folder)
    assert torch.equal(bequest.load(folder, fresh)(x), pruned.model(x))
    shares = {one.producers[0]: len(one.removed) / one.size for one in pruned.plan.groups}
    again = plainly(dense, x, shares, criterion="l1", restorer="lbyl")
    assert [one.removed for one in again.plan.groups] == [one.removed for one in pruned.plan.groups]
    torch.testing.assert_close(again.model(x), dense(x), rtol=1e-9, atol=1e-9)


def masked(
    model: nn.Module,
    inputs: Any,
    pruned: Pruned,
    channels: Channels | None = None,
    *,
    rows: bool = False,
) -> nn.Module:
    """The dense model without what the pruned channels are read with, and written with."""
    channels = channels or group(read(trace(model, inputs)))
    without = copy.deepcopy(model)
    leaving = gone(channels, pruned)
    tensors = named_tensors(without)
    with torch.no_grad():
        for one in (*channels.reading.reads, *(channels.reading.writes if rows else ())):
            gone_here = torch.from_numpy(np.flatnonzero(leaving[channels.channel_of[one.labels]]))
            if one.weight is not None and one.groups == 1:
                tensors[one.weight].index_fill_(one.dim, gone_here, 0.0)
            if one.bias is not None and isinstance(one, Write):
                tensors[one.bias].index_fill_(0, gone_here, 0.0)
    return without


def gone(channels: Channels, pruned: Pruned) -> np.ndarray:
    """For every channel id whether the plan says that it left."""
    removed = {one.name: list(one.removed) for one in pruned.plan.groups}
    leaving = np.zeros(int(channels.channel_of.max()) + 1, bool)
    for member in channels.groups:
        leaving[member.channels[removed.get(member.name, [])]] = True
    return leaving

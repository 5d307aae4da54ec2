"""The oracle of the rules: the cut network computes what the dense one does without the channels.

In the masked network the columns are zero where channels that left are read. What lies before may
do anything to the channels, as long as it does it to each alone.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

import bequest
from bequest.graph.groups import Channels, group
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.pruning import Pruned


def plainly(model: nn.Module, inputs: Any, ratio: Any = 0.5, **more: Any) -> Pruned:
    """Channels leave at random, of every group, and nothing is handed on."""
    settings = {"criterion": "random", "groups": "all", "round_to": 1, "restorer": "none"}
    return bequest.prune(model, inputs, ratio, progress=False, **{**settings, **more})


def masked(
    model: nn.Module, inputs: Any, pruned: Pruned, channels: Channels | None = None
) -> nn.Module:
    """The dense model without what the pruned channels are read with."""
    channels = channels or group(read(trace(model, inputs)))
    without = copy.deepcopy(model)
    leaving = gone(channels, pruned)
    tensors = named_tensors(without)
    with torch.no_grad():
        for one in channels.reading.reads:
            if one.weight is not None and one.groups == 1:
                at = np.flatnonzero(leaving[channels.channel_of[one.labels]])
                tensors[one.weight].index_fill_(one.dim, torch.from_numpy(at), 0.0)
    return without


def gone(channels: Channels, pruned: Pruned) -> np.ndarray:
    """For every channel id whether the plan says that it left."""
    removed = {one.name: list(one.removed) for one in pruned.plan.groups}
    leaving = np.zeros(int(channels.channel_of.max()) + 1, bool)
    for member in channels.groups:
        leaving[member.channels[removed.get(member.name, [])]] = True
    return leaving

"""What training alone reads: auxiliary heads, embeddings of masks, noise of a layer's width.

The trace in evaluation mode never meets them, so nothing in it says which channels they share. The
modules that hold them, and those around these, are traced once more with their ``training`` flags
set (all others stay in evaluation mode): what that trace ties is cut along. It is an addition, not
a condition: where it fails, or where the code draws lots, a run in training mode and a note remain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from bequest.execution.copies import duplicate, hollow_copy
from bequest.execution.running import undisturbed
from bequest.graph.groups import Channels, group
from bequest.graph.inputs import Inputs, normalise_inputs
from bequest.graph.rules import read
from bequest.graph.trace import (
    Network,
    meta_copy,
    named_tensors,
    to_meta,
    trace_shapes,
)
from bequest.surgery import operation
from bequest.surgery.cut import Cut
from bequest.surgery.operation import Surgery, TensorCut
from bequest.surgery.verify import compare

Run = Callable[[nn.Module, Inputs], None]

_NAMED = 4


def with_training(channels: Channels, model: nn.Module, example_inputs: Any) -> Channels:
    """The groups, with what a trace in training mode says of tensors that the first never reads.

    Args:
        channels: the network's groups, as evaluation mode has them.
        model: the dense model; it is not changed.
        example_inputs: what it was traced with.
    """
    widths = {member.size for member in channels.groups}
    unread = [name for name, tensor in _unread(channels, model) if widths & {*tensor.shape}]
    if not unread:
        return channels
    flag = partial(_flag, _owners(unread))
    try:
        with undisturbed(model):
            if not _reads(model, example_inputs, flag, unread):
                return channels
            network = trace_shapes(model, example_inputs, flag)
    except Exception:  # whatever the model's code says to inputs that it isn't trained with
        return channels
    return replace(channels, training=group(read(network)))


def training_cuts(cut: Cut) -> Iterator[TensorCut]:
    """Cuts of tensors that training alone reads, along what it ties them to.

    Args:
        cut: who leaves.
    """
    channels = cut.channels
    if channels.training is None:
        return
    unread = _unread_names(channels.reading.network)
    here, there = channels.reading.ledger.slots, channels.training.reading.ledger.slots
    channel_of = channels.training.channel_of
    count = int(channel_of.max(initial=-1)) + 1
    leaves, stays = np.zeros(count, bool), np.zeros(count, bool)
    for place in here.keys() & there.keys():
        if place[0] not in unread:
            gone = cut.gone(here[place])
            leaves[channel_of[there[place]][gone]] = True
            stays[channel_of[there[place]][~gone]] = True
    for (tensor, dim), labels in there.items():
        tied = channel_of[labels]
        gone = leaves[tied]
        if tensor in unread and gone.any() and not gone.all() and not (gone & stays[tied]).any():
            yield TensorCut(tensor, dim, tuple(np.flatnonzero(~gone).tolist()))


def training_notes(
    channels: Channels, surgery: Surgery, model: nn.Module, pruned: nn.Module, example_inputs: Any
) -> tuple[str, ...]:
    """What a user who trains the pruned network should know; nothing where training runs.

    Args:
        channels: the dense network's groups.
        surgery: what made the pruned network.
        model: the dense network; copies of both are run in training mode, without data if possible.
        pruned: the pruned network.
        example_inputs: what the network was traced with.
    """
    touched = {one.tensor for one in surgery.cuts}
    unread = dict(_unread(channels, model))
    notes: list[str] = []
    problem = None
    if cut := [name for name in unread if name in touched]:
        notes.append(f"{_listed(cut)}: read in training alone, cut like what it meets there")
        problem = _misfit(channels, surgery, model, example_inputs, cut)
    problem = problem or _training_problem(model, pruned, example_inputs)
    if problem == "":
        return tuple(notes)
    dense = named_tensors(model)
    widths = {dense[one.tensor].shape[one.dim] for one in surgery.cuts}
    wide = [name for name in unread if name not in touched and widths & {*unread[name].shape}]
    if wide:
        notes.append(
            f"{_listed(wide)}: read in training alone or never, and as wide as before, although "
            "layers of that width have lost channels"
        )
    if problem is not None:
        notes.append(f"the network is fit for evaluation alone; in training mode: {problem}")
    return tuple(notes)


def _reads(
    model: nn.Module, example_inputs: Any, change: Callable[[nn.Module], None], names: Sequence[str]
) -> bool:
    """Whether the network reads any of these tensors after ``change``; a run without data."""
    copied = meta_copy(model)
    change(copied)
    tensors = named_tensors(copied)
    args, kwargs = to_meta(normalise_inputs(example_inputs))
    watch = _Reads({id(tensors[name]) for name in names})
    with torch.no_grad(), watch:
        try:
            copied(*args, **kwargs)
        except Exception:  # the code mixes in tensors of a device; tracing may find a way
            return True
    return watch.met


class _Reads(TorchFunctionMode):
    """Notes whether any of some tensors is read inside.

    Attributes:
        met: whether one was.
    """

    def __init__(self, tensors: Collection[int]) -> None:
        super().__init__()
        self.tensors = tensors
        self.met = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = pytree.tree_leaves((args, kwargs))
        self.met = self.met or any(id(one) in self.tensors for one in given)
        return func(*args, **(kwargs or {}))


def _owners(tensors: Iterable[str]) -> frozenset[str]:
    """The modules that hold tensors, and those around these; '' is the whole network."""
    paths = [name.split(".")[:-1] for name in tensors]
    return frozenset(".".join(path[:end]) for path in paths for end in range(len(path) + 1))


def _flag(modules: Collection[str], model: nn.Module) -> None:
    """Sets the flags of training; layers of PyTorch's own, such as batch norms, are left alone."""
    for name, module in model.named_modules():
        if name in modules and not type(module).__module__.startswith("torch.nn.modules"):
            module.training = True


def _unread_names(network: Network) -> frozenset[str]:
    """Parameters and buffers that no operator of the trace reads, by any of their placeholders."""
    held = [node for node in network.nodes if node.name in network.tensors]
    read_names = {network.tensors[node.name] for node in held if node.users}
    return frozenset(network.tensors.values()) - read_names


def _unread(channels: Channels, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    names = _unread_names(channels.reading.network)
    return ((name, t) for name, t in named_tensors(model).items() if name in names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more


def _misfit(
    channels: Channels, surgery: Surgery, model: nn.Module, example_inputs: Any, cut: list[str]
) -> str | None:
    """What the branches of training do otherwise than their trace foresees; None where nothing."""
    training = channels.training
    assert training is not None
    slots = training.reading.ledger.slots
    there = Cut.of(training)
    for one in surgery.cuts:
        if one.blocks == 1 and (labels := slots.get((one.tensor, one.dim))) is not None:
            there.leaving[training.channel_of[np.delete(labels, one.keep)]] = True

    def change(copied: nn.Module) -> None:
        _flag(_owners(cut), copied)
        operation.apply(copied, surgery)

    try:
        with undisturbed(model):
            return compare(there, trace_shapes(model, example_inputs, change))
    except Exception as error:  # whatever the model's own code raises at other widths
        return " ".join(str(error).split())[:200]


def _training_problem(model: nn.Module, pruned: nn.Module, example_inputs: Any) -> str | None:
    """Why the pruned network doesn't run in training mode though the dense one does.

    Returns:
        The error; "" where it runs, None where the dense network doesn't run either.
    """
    inputs = normalise_inputs(example_inputs)
    if _error(_run_without_data, pruned, inputs) is None:
        return ""
    for run in (_run_without_data, _run_hollow, _run_copied):
        for feed in (inputs, pytree.tree_map_only(Tensor, _doubled, inputs)):
            if _error(run, model, feed) is None:
                return _error(run, pruned, feed) or ""
    return None


def _error(run: Run, model: nn.Module, inputs: Inputs) -> str | None:
    """What running raises, in one line; None where it runs."""
    try:
        with torch.no_grad(), undisturbed(model):
            run(model, inputs)
    except Exception as error:  # whatever the model's own code raises
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None


def _run_without_data(model: nn.Module, inputs: Inputs) -> None:
    _forward(meta_copy(model), to_meta(inputs))


def _run_hollow(model: nn.Module, inputs: Inputs) -> None:
    _forward(hollow_copy(model), inputs)


def _run_copied(model: nn.Module, inputs: Inputs) -> None:
    _forward(duplicate(model), inputs)


def _forward(model: nn.Module, inputs: Inputs) -> None:
    args, kwargs = inputs
    model.train()(*args, **kwargs)


def _doubled(tensor: Tensor) -> Tensor:
    """Twice as many samples: batch norms want several."""
    return torch.cat([tensor, tensor]) if tensor.ndim else tensor

"""Parameters, multiply-accumulates and size of a model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from bequest.execution.copies import hollow_copy
from bequest.execution.paging import let_go
from bequest.execution.running import Inputs, evaluation_mode, run
from bequest.graph.inputs import normalise_inputs
from bequest.graph.trace import meta_copy, to_meta
from bequest.sparse.encoding import stored_bytes


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        params: number of parameters; shared ones count once.
        macs: multiply-accumulates of one forward pass over the whole of the example inputs.
        bytes: of the tensors that saving stores: parameters and persistent buffers, those with
            many zeros without the zeros.
    """

    params: int
    macs: int
    bytes: int


def cost(model: nn.Module, example_inputs: Inputs) -> Cost:
    """Counts parameters, multiply-accumulates and bytes; the model stays as it is.

    MACs are as in :func:`count_macs`. They grow with the batch: give a batch of one for the number
    that papers state.

    Args:
        model: any module.
        example_inputs: a tensor, or a tuple or dict of arguments, on the model's device.

    Raises:
        UsageError: ``model`` is no module, or fails on the inputs.
    """
    with evaluation_mode(model):
        macs = count_macs(lambda: run(model, example_inputs))
    return Cost(
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=macs,
        bytes=stored_size(model),
    )


def stored_size(model: nn.Module) -> int:
    """Bytes of the tensors that saving stores, each once; their values decide which are sparse."""
    state = model.state_dict(keep_vars=True).values()
    tensors = {id(t): t for t in state if isinstance(t, Tensor)}.values()
    size = 0
    for tensor in tensors:
        size += stored_bytes([tensor])
        let_go(tensor)
    return size


def count_macs(work: Callable[[], object]) -> int:
    """Multiply-accumulates of the operators that ``work`` runs.

    Half the FLOPs of :class:`torch.utils.flop_counter.FlopCounterMode`, which counts matrix
    products, convolutions and attention and takes element-wise operations and norms as free.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    # The fused attention kernels of the CPU have no entry in the counter; the plain one is made
    # of matrix products, which have.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        work()
    return counter.get_total_flops() // 2


class _NoModules(ModuleTracker):
    """The total needs no module's name.

    PyTorch's tracker hooks every module of the process, other threads' too, and asks views of
    parameters for gradients that there are none of here.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was hooked."""


def cost_without_data(model: nn.Module, example_inputs: Any) -> Cost:
    """Counted on a copy without data where the model runs without; bytes are those of the data."""
    inputs = normalise_inputs(example_inputs)
    for emptied, (args, kwargs) in ((meta_copy, to_meta(inputs)), (hollow_copy, inputs)):
        with suppress(Exception):  # whatever the model's code says to such numbers
            return replace(cost(emptied(model), kwargs or args), bytes=stored_size(model))
    return cost(model, example_inputs)

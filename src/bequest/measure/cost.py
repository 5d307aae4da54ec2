"""Parameters, multiply-accumulates and size of a model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bequest.artifact.sparse import stored_bytes
from bequest.measure.execution import Inputs, evaluation_mode, run


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

    MACs are half the FLOPs of :class:`torch.utils.flop_counter.FlopCounterMode`, which counts
    matrix products, convolutions and attention and takes element-wise operations and norms as
    free. They grow with the batch: give a batch of one for the number that papers state.

    Args:
        model: any module.
        example_inputs: a tensor, or a tuple or dict of arguments, on the model's device.
    """
    # The fused attention kernels of the CPU have no entry in the counter; the plain one is made
    # of matrix products, which have.
    counter = FlopCounterMode(display=False)
    with evaluation_mode(model), sdpa_kernel(SDPBackend.MATH), counter:
        run(model, example_inputs)
    stored = {id(t): t for t in model.state_dict(keep_vars=True).values() if isinstance(t, Tensor)}
    return Cost(
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=counter.get_total_flops() // 2,
        bytes=stored_bytes(stored.values()),
    )

"""Whether inputs have the scale that a network was trained on: its first batch norms tell.

A batch norm has stored the mean μ and deviation σ of what it saw in training. Of the inputs at hand
it sees the mean m and deviation s; per channel they are (m − μ)/σ deviations off and s/σ times as
wide. At norms that lie behind no other norm, with nothing before them that would hide the scale,
both tell inputs of another normalisation: pixels of 0..255 or [0, 1] in place of normalised ones.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bequest.calibration.inputs.batching import Batching
from bequest.calibration.samples import Samples
from bequest.errors import InputWarning
from bequest.execution.copies import private_copy
from bequest.execution.running import run
from bequest.graph.inputs import mapped, normalise_inputs, with_tensors

FARTHEST = 1.0
"""Root mean square over channels of the means' distances, in stored deviations, that is borne. Real
images are 0.1 off; without the mean subtracted 1.0 to 1.3, and pixels in 0..255 some 50."""

WIDEST = 2.5
"""Times that a deviation may be as large as the stored one, or as small; the median channel counts.
Of real images it is 0.9 times as large, of one alone 0.5; of pixels in [0, 1] 0.2 times."""

ENOUGH = 16
"""Inputs that are looked at, and values per channel under which nothing is said."""


@dataclass(frozen=True)
class Sight:
    """What a batch norm sees of the inputs, against what it saw in training.

    Attributes:
        norm: its qualified name.
        deviation: median over channels of the inputs' deviation there.
        stored: the same of the stored ones.
        ratio: median over channels of deviation ÷ stored one.
        shift: root mean square over channels of the distance of means, in stored deviations.
    """

    norm: str
    deviation: float
    stored: float
    ratio: float
    shift: float

    @property
    def usual(self) -> bool:
        """Whether inputs of the training's normalisation could look so."""
        return self.shift <= FARTHEST and 1 / WIDEST <= self.ratio <= WIDEST

    def __str__(self) -> str:
        return (
            f"batch norm '{self.norm}' sees channels of the standard deviation "
            f"{self.deviation:.3g} where it saw {self.stored:.3g} in training, and means that are "
            f"{self.shift:.3g} of those deviations off"
        )


def noted(samples: Samples, model: nn.Module, example_inputs: Any) -> Samples:
    """The samples, with a note where they have another scale than the network was trained on.

    The note is given as an :class:`~bequest.errors.InputWarning` too.

    Args:
        samples: inputs of the network, on its device.
        model: the dense network, in at least single precision; a copy of it is run.
        example_inputs: the network's example inputs.
    """
    found = (sight for sight in sights(samples, model, example_inputs) if not sight.usual)
    first = next(found, None)
    if first is None:
        return samples
    what, cure = "data", "normalise the inputs as in training"
    if not samples.real:
        what = "made-up inputs"
        cure = "give the range of real ones, as in Regression(value_range=(0, 1)), or real ones"
    note = f"{what}: {first}; {cure}"
    warnings.warn(note, InputWarning, stacklevel=2)
    return replace(samples, notes=(*samples.notes, note))


def sights(samples: Samples, model: nn.Module, example_inputs: Any) -> list[Sight]:
    """What each first batch norm sees of the samples; empty for a network without batch norms."""
    if not any(map(has_statistics, model.modules())):
        return []
    fixed = Batching.of(example_inputs).size == samples.chunk_size  # it may run with so many alone
    rows = slice(None if fixed else ENOUGH)
    met = []
    for chunk in samples.chunks[: -(-ENOUGH // samples.chunk_size)]:
        parts = [part if i in samples.whole else part[rows] for i, part in enumerate(chunk)]
        met.append(first_norms(private_copy(model), with_tensors(example_inputs, parts)))
    found = []
    for same in zip(*met, strict=True):
        name, norm = same[0][:2]
        value = torch.cat([seen for _, _, seen in same])
        if value.numel() < ENOUGH * value.shape[1]:
            continue
        dims = [d for d in range(value.ndim) if d != 1]
        mean, var = value.mean(dims), value.var(dims, correction=0)
        sigma = (norm.running_var + norm.eps).sqrt()
        deviation = (var + norm.eps).sqrt()
        shift = ((mean - norm.running_mean) / sigma).square().mean().sqrt()
        numbers = torch.stack(
            [deviation.median(), sigma.median(), (deviation / sigma).median(), shift]
        )
        found.append(Sight(name, *numbers.tolist()))
    return found


def first_norms(copy: nn.Module, inputs: Any) -> list[tuple[str, nn.Module, Tensor]]:
    """Name, norm and input of each batch norm behind no other; ``copy`` is given hooks.

    Gradients show the way: the inputs ask for them, norms' outputs don't.
    """
    met: list[tuple[str, nn.Module, Tensor]] = []

    def watch(name: str) -> Any:
        def meet(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
            if given[0].requires_grad:
                met.append((name, norm, given[0].detach()))

        return meet

    def cut(norm: nn.Module, given: Any, output: Any) -> Any:
        return mapped(output, Tensor.detach)

    for name, module in copy.named_modules():
        if has_statistics(module):
            module.register_forward_pre_hook(watch(name))
            module.register_forward_hook(cut)
    args, kwargs = mapped(
        normalise_inputs(inputs),
        lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()),
    )
    with torch.enable_grad():
        args, kwargs = mapped((args, kwargs), Tensor.clone)  # code may write into its input
        run(copy, kwargs or args)
    return met


def has_statistics(module: nn.Module) -> bool:
    """Whether it is a batch norm that has stored what it saw; a new one has ones and zeros."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm) or module.running_mean is None:
        return False
    assert module.running_var is not None
    new = torch.cat([module.running_mean, module.running_var - 1]).any().logical_not()
    return not bool(new)

"""Which inputs of a network have a row per sample, and how many samples it takes at once.

The example inputs tell: the size that most of their tensors begin with counts the samples (of two
equally frequent ones, that of the tensor with more dimensions). Tensors that begin with another
one, or have no dimensions, are the same for all samples. Most networks take
any number of samples; some have the example's written into their code (``view(1, -1)``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bequest.errors import UsageError
from bequest.graph.inputs import mapped, normalise_inputs, tensors_of, with_tensors
from bequest.graph.trace import refuse_inputs, results_of


@dataclass(frozen=True)
class Batching:
    """How the example inputs are made of samples.

    Attributes:
        size: number of samples in the example.
        whole: positions of the tensors that have no row per sample.
    """

    size: int
    whole: frozenset[int]

    @classmethod
    def of(cls, example_inputs: Any) -> Batching:
        """Reads it off the example inputs.

        Raises:
            UsageError: none of their tensors has a dimension.
        """
        tensors = tensors_of(normalise_inputs(example_inputs))
        sizes = Counter(len(tensor) for tensor in tensors if tensor.ndim)
        if not sizes or 0 in sizes:
            raise UsageError(
                "example_inputs: expected tensors whose first dimension counts samples, at least "
                f"one, found the shapes {[tuple(tensor.shape) for tensor in tensors]}"
            )
        size = max((t for t in tensors if t.ndim), key=lambda t: (sizes[len(t)], t.ndim)).shape[0]
        alone = (i for i, one in enumerate(tensors) if one.ndim == 0 or len(one) != size)
        return cls(size, frozenset(alone))

    def samples_at_once(self, model: nn.Module, example_inputs: Any, wanted: int) -> int:
        """How many samples the network is run with: ``wanted``, or what the example has.

        Args:
            model: the dense network; a copy without data is run where that is possible.
            example_inputs: the network's example inputs.
            wanted: how many there should be.

        Raises:
            UsageError: the network doesn't run on the example inputs either.
        """
        if wanted == self.size:
            return wanted
        try:
            resized = self._resized(example_inputs, wanted)
            many = results_of(model, resized, with_data=self._may_point(example_inputs))
        except Exception:  # whatever the model's code says to another batch size
            refuse_inputs(model, example_inputs)
            _refuse_single(model, example_inputs)
            return self.size
        return wanted if self._follows(many, wanted) else self.size

    def _may_point(self, example_inputs: Any) -> bool:
        """Whether an input may say where samples stand (edges of a graph, where bags begin).

        It does so at the example's number of samples, and only numbers tell whether at others too.
        """
        tensors = tensors_of(normalise_inputs(example_inputs))
        return any(tensors[i].ndim > 0 and not tensors[i].is_floating_point() for i in self.whole)

    def _resized(self, example_inputs: Any, count: int) -> Any:
        """The example with so many samples, its own over and over."""
        rows = torch.arange(count, device="cpu") % self.size
        tensors = tensors_of(normalise_inputs(example_inputs))
        return with_tensors(
            example_inputs,
            [
                tensor if i in self.whole else tensor[rows.to(tensor.device)]
                for i, tensor in enumerate(tensors)
            ],
        )

    def _follows(self, outputs: Any, count: int) -> bool:
        """Whether results hold so many samples: a network may fold all of a batch into one."""
        shapes = _shapes(outputs)
        return not any(shapes) or any(
            shape and (shape[0] % count == 0 or count in shape) for shape in shapes
        )


def _refuse_single(model: nn.Module, example_inputs: Any) -> None:
    """Raises UsageError where the example is one sample without the dimension that counts them."""
    args, kwargs = normalise_inputs(example_inputs)
    try:
        alone = _shapes(results_of(model, example_inputs))
        counted = _shapes(results_of(model, mapped(kwargs or args, lambda one: one[None])))
    except Exception:  # whatever the model's code says to another dimension
        return
    if alone and counted == [(1, *shape) for shape in alone]:
        raise UsageError(
            "example_inputs: expected samples counted by the first dimension, found a single one "
            f"of the shape {tuple(tensors_of((args, kwargs))[0].shape)}; give x[None]"
        )


def _shapes(outputs: Any) -> list[tuple[int, ...]]:
    return [tuple(one.shape) for one in tree_leaves(outputs) if isinstance(one, Tensor)]

"""A network to be examined: how it is built, what it reads, which of its results count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_CACHES = frozenset({"past_key_values", "cache_params", "state", "mems"})


@dataclass(frozen=True)
class Subject:
    """A network to prune.

    Attributes:
        build: makes a fresh instance with the library's own initial weights.
        example: its inputs, by keyword for networks of transformers and diffusers.
        results: names of the results that count, as ``outputs=`` takes them; None = all.
        shares_streams: it is an encoder-decoder whose streams meet: more of it may stay.
    """

    build: Callable[[], nn.Module]
    example: Tensor | dict[str, Any]
    results: tuple[str, ...] | None = None
    shares_streams: bool = False

    def trained(self) -> nn.Module:
        """An instance whose weights are random in every place, in evaluation mode."""
        torch.manual_seed(0)
        return _varied(self.build().eval(), self)


def outputs(model: nn.Module, subject: Subject) -> Tensor:
    """Everything floating-point in the results that count, as one vector; caches are no results."""
    example = subject.example
    value = model(**example) if isinstance(example, Mapping) else model(example)
    if subject.results is not None:
        value = [value[name] for name in subject.results]
    return torch.cat([tensor.flatten() for tensor in _tensors(value)])


def noise(*shape: int) -> Tensor:
    """Normal numbers, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def tokens(rows: int, *shape: int) -> Tensor:
    """Rows of a vocabulary, the same at every call."""
    return torch.randint(0, rows, shape, generator=torch.Generator().manual_seed(1))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    items = value
    if isinstance(value, Mapping):
        items = [one for name, one in value.items() if name not in _CACHES]
    return [tensor for item in items for tensor in _tensors(item)] if items is not None else []


@torch.no_grad()
def _varied(model: nn.Module, subject: Subject) -> nn.Module:
    """Spreads constant parameters, and gives batch norms the statistics of the example.

    A zero-initialised scale would hide what pruning does.
    """
    for parameter in model.parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            if float(parameter.flatten()[0]) >= 0.5:
                nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                nn.init.normal_(parameter, std=0.1)
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    outputs(model, subject)
    return model.eval()

"""What takes part in a sweep: a dense network, and what it is measured on."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from bequest import config
from bequest.artifact.fingerprint import stored_tensors
from bequest.calibration.inputs import Source
from bequest.errors import UsageError
from bequest.execution.copies import duplicate
from bequest.execution.devices import device_of
from bequest.measure import Accuracy, evaluate, perplexity
from bequest.sweeping.analyses import Analyses


class Measure(ABC):
    """What networks are measured on. It is carried to other processes."""

    of_text: ClassVar[bool] = False
    name: str

    @abstractmethod
    def accuracy(self, model: nn.Module) -> Accuracy:
        """Of a network on it."""

    @abstractmethod
    def fingerprint(self) -> str:
        """The same in every process that measures on the same."""


@dataclass(frozen=True)
class Images(Measure):
    """Pairs (inputs, labels) of a classifier, batch by batch.

    Attributes:
        loader: can be iterated over again and again: a loader, or a list of batches.
        name: in words.
    """

    loader: Iterable[Any]
    name: str = "the loader"

    def __post_init__(self) -> None:
        if isinstance(self.loader, Iterator) or not isinstance(self.loader, Iterable):
            raise UsageError(
                "a sweep measures many times: expected a loader or a list of batches "
                f"(inputs, labels), found {type(self.loader).__name__}"
            )

    def accuracy(self, model: nn.Module) -> Accuracy:
        """Top-1, top-5 and loss."""
        return evaluate(model, self.loader)

    def fingerprint(self) -> str:
        """Of the first batch, and how many there are where that is known."""
        count = getattr(self.loader, "count", None)
        if not isinstance(count, int):
            count = _length(self.loader)
        return f"{count} {_digest(islice(self.loader, 1))}"


@dataclass(frozen=True)
class Tokens(Measure):
    """A text in tokens, read in windows.

    Attributes:
        tokens: int64 (n,).
        window: tokens that a network reads at once.
        stride: tokens from one window to the next; None = the window.
        name: in words.
    """

    tokens: Tensor
    window: int
    stride: int | None = None
    name: str = "the text"
    of_text: ClassVar[bool] = True

    def accuracy(self, model: nn.Module) -> Accuracy:
        """Of the next tokens: ``loss`` is the logarithm of the perplexity."""
        read = perplexity(model, self.tokens, window=self.window, stride=self.stride)
        return Accuracy(read.top1, None, read.loss, read.tokens, 0)

    def fingerprint(self) -> str:
        """Of all tokens and of how they are read."""
        return f"{self.window} {self.stride} {_digest([self.tokens])}"


@dataclass(frozen=True)
class Network:
    """A dense network of a sweep.

    Attributes:
        name: by which the sweep's table calls it.
        model: a trained module; it is neither changed nor run where it stands.
        example_inputs: as in :func:`bequest.prune`.
        measure: a :class:`Measure`, or a loader of pairs (inputs, labels).
        data: as in :func:`bequest.prune`: what is looked at; None = inputs are made up.
        value_range: lowest and highest value of an input, where it is known.
        device: where it works; None = where the model is.
        analyses: of the network, for the cells of one sweep.
    """

    name: str
    model: nn.Module
    example_inputs: Any
    measure: Any
    data: Any = None
    value_range: tuple[float, float] | None = None
    device: str | None = None
    analyses: Analyses = field(init=False, default_factory=Analyses, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise UsageError(
                f"network '{self.name}': expected a torch.nn.Module, found "
                f"{type(self.model).__name__}"
            )
        if self.measure is not None and not isinstance(self.measure, Measure):
            object.__setattr__(self, "measure", Images(self.measure))
        if isinstance(self.data, Iterator):
            raise UsageError(
                f"network '{self.name}': data is read for every seed; expected a list of batches "
                f"or a loader, found {type(self.data).__name__}"
            )
        if self.device is None:
            object.__setattr__(self, "device", str(device_of(self.model)))

    @property
    def on_gpu(self) -> bool:
        """Whether it works on an accelerator."""
        return not str(self.device).startswith("cpu")

    def lent(self) -> Network:
        """For one sweep: the model may be another when the next one begins."""
        return replace(self)

    def carried(self) -> Network:
        """As it travels: its tensors in main memory, and what it is measured on left behind."""
        model = duplicate(self.model).to("cpu") if self.on_gpu else self.model
        return replace(self, model=model, example_inputs=self._moved("cpu"), measure=None)

    def placed(self) -> Network:
        """Where it works, which is where it already is unless it was :meth:`carried`."""
        device = str(self.device)
        if str(device_of(self.model)) == device:
            return self
        if device.startswith("cuda"):
            device = "cuda"  # a worker sees the one that it was given
        return replace(self, model=self.model.to(device), example_inputs=self._moved(device))

    def _moved(self, device: str) -> Any:
        return tree_map_only(Tensor, lambda one: one.to(device), self.example_inputs)

    def describe(self) -> dict[str, Any]:
        """By what another run knows that it is the same."""
        tensors = stored_tensors(self.model)
        data = self.data
        if isinstance(data, Source):
            data = data.to_json()
        elif data is not None and not isinstance(data, str):
            data = _digest(data if isinstance(data, Tensor) else islice(data, 1))
        shapes = [list(one.shape) for one in tree_leaves(self.example_inputs) if _is_tensor(one)]
        return {
            "name": self.name,
            "tensors": _digest([*tensors, *tensors.values()]),
            "example_inputs": shapes,
            "measure": self.measure.fingerprint(),
            "data": data,
            "value_range": None if self.value_range is None else [*self.value_range],
            "device": str(self.device).partition(":")[0],
        }


def label(method: Any) -> str:
    """A method by its name, with the fields in which it differs from its defaults."""
    kind = type(method)
    try:
        usual = config.to_json(kind())
    except Exception:  # it has fields without defaults, or no config object at all
        usual = {}
    told = {k: v for k, v in config.to_json(method).items() if usual.get(k, usual) != v}
    fields = ", ".join(f"{k}={v}" for k, v in told.items() if k not in ("name", "version"))
    return f"{method.name}({fields})" if fields else str(method.name)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except TypeError:
        return None


def _digest(values: Any) -> str:
    """SHA-256 of the tensors and words in a tree, as far as it has any; 16 digits of it."""
    found = hashlib.sha256()
    for leaf in tree_leaves(list(values)):
        if isinstance(leaf, Tensor | np.ndarray):
            tensor = torch.as_tensor(leaf).detach().cpu().contiguous()
            found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(str(leaf).encode())
    return found.hexdigest()[:16]

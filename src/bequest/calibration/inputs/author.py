"""A network that can write: how it is recognised, by running it, and how it writes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bequest.calibration.inputs.base import macs_of_one
from bequest.calibration.inputs.batching import Batching
from bequest.errors import UsageError
from bequest.execution.progress import tracked
from bequest.execution.randomness import stream
from bequest.execution.running import run
from bequest.graph.inputs import normalise_inputs, tensors_of, with_tensors
from bequest.graph.trace import trace
from bequest.graph.vocabulary import tables

AT_ONCE, STEP = 16, 10**10
"""Rows that are written at once: as many as a step of so many multiply-accumulates serves, and no
fewer than that many, which share one reading of the weights. So their cache stays small."""

ROUNDING = 1e-5
"""Difference of outputs, relative to the largest, that may be rounding."""

PASSED = 4
"""Tokens by which it is seen whether a cache, or another length, makes no difference."""


class CannotWriteError(UsageError):
    """The network can't write its own inputs.

    Attributes:
        reason: why, in words.
    """

    def __init__(self, model: nn.Module, reason: str) -> None:
        self.reason = f"{type(model).__name__} can't write its own: {reason}"
        super().__init__(
            f"data: a network writes its inputs where it foretells tokens; {self.reason}. Give "
            "real ones with data=, or random ones with data='synthetic'"
        )


@dataclass(frozen=True)
class Author:
    """A network that can write.

    Attributes:
        model: runs as it is.
        example_inputs: in whose places tokens and masks are arguments.
        position: of the tokens among the example's tensors.
        vocabulary: number of tokens.
        macs: multiply-accumulates of a token.
        probabilities: whether outputs lie behind a softmax.
        argument: name of what takes tokens beside a cache; None = there is no cache.
        any_length: whether the network takes rows of other lengths than the example's.
    """

    model: nn.Module
    example_inputs: Any
    position: int
    vocabulary: int
    macs: int
    probabilities: bool = False
    argument: str | None = None
    any_length: bool = False

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, example_inputs: Any) -> Author:
        """The network, if it can write.

        Args:
            model: a copy in evaluation mode, in at least single precision.
            example_inputs: the network's example inputs.

        Raises:
            CannotWriteError: it can't; the message says why.
        """
        examples = tensors_of(normalise_inputs(example_inputs))
        shape = examples[0].shape
        if any(one.is_floating_point() or one.shape != shape for one in examples):
            raise CannotWriteError(model, "it doesn't read one batch of tokens")
        if len(shape) != 2 or shape[1] < 2:
            raise CannotWriteError(
                model, f"expected example inputs (batch, length), length ≥ 2, found {tuple(shape)}"
            )
        if not any(_is_row_per_token(one, shape) for one in _results(model, example_inputs)):
            raise CannotWriteError(model, "it doesn't return (batch, length, vocabulary)")
        found = [(i, n) for i, n in enumerate(tables(trace(model, example_inputs))) if n]
        if len(found) != 1:
            raise CannotWriteError(model, f"expected one input of tokens, found {len(found)}")
        macs = max(1, macs_of_one(model, example_inputs) // shape[1])
        return cls(model, example_inputs, *found[0], macs)._tried()

    def _tried(self) -> Author:
        """With what running it tells.

        Raises:
            CannotWriteError: outputs are no predictions, or depend on tokens that come later.
        """
        tokens = torch.randint(self.vocabulary, self._example.shape, generator=stream(0))
        other = torch.cat([tokens[:, :-1], (tokens[:, -1:] + 1) % self.vocabulary], 1)
        logits = self.logits(tokens)
        if not bool(logits.isfinite().any(-1).all()) or bool((logits == torch.inf).any()):
            raise CannotWriteError(self.model, "its outputs are not finite")
        if not _same(logits[:, :-1], self.logits(other)[:, :-1]):
            raise CannotWriteError(self.model, "its outputs depend on tokens that come later")
        sums = logits.sum(-1)
        probabilities = bool((logits >= 0).all()) and _same(sums, torch.ones_like(sums))
        few = min(PASSED, self.length)
        return replace(
            self,
            probabilities=probabilities,
            argument=self._argument(tokens[:, :few], logits[:, :few]),
            any_length=self._is_same(tokens[:, : few // 2], logits[:, : few // 2]),
        )

    @property
    def _example(self) -> Tensor:
        return tensors_of(normalise_inputs(self.example_inputs))[self.position]

    @property
    def length(self) -> int:
        """Of the example."""
        return self._example.shape[1]

    @property
    def start(self) -> int | None:
        """The token that texts begin with, as the network's configuration names it."""
        config = getattr(self.model, "config", None)
        for name in ("bos_token_id", "decoder_start_token_id"):
            token = getattr(config, name, None)
            if isinstance(token, int) and 0 <= token < self.vocabulary:
                return token
        return None

    def arguments(self, tokens: Tensor) -> list[Tensor]:
        """The network's input tensors for rows of tokens: beside them, masks of ones."""
        examples = tensors_of(normalise_inputs(self.example_inputs))
        return [
            tokens.to(one) if i == self.position else torch.ones_like(tokens).to(one)
            for i, one in enumerate(examples)
        ]

    def logits(self, tokens: Tensor) -> Tensor:
        """What follows each token, (batch, length, V), from (batch, length).

        Raises:
            CannotWriteError: the network returns nothing of that shape.
        """
        inputs = with_tensors(self.example_inputs, self.arguments(tokens))
        wanted = (*tokens.shape, self.vocabulary)
        found = (one for one in _results(self.model, inputs) if one.shape == wanted)
        logits = next((one for one in found if one.is_floating_point()), None)
        if logits is None:
            raise CannotWriteError(
                self.model, f"it doesn't return (batch, length, {self.vocabulary}), its tokens"
            )
        return logits

    def passes(self, length: int) -> int:
        """Passes of a token through the network, on average, for each that is written."""
        if self.argument is not None:
            return 1
        return (length + 1) // 2 if self.any_length else length

    def bears(self, length: int) -> bool:
        """Whether the network takes rows of that length, which it has learnt to read."""
        longest = getattr(getattr(self.model, "config", None), "max_position_embeddings", None)
        if isinstance(longest, int) and length > longest:
            return False
        tokens = torch.zeros(len(self._example), length, dtype=torch.int64)
        return self._is_same(tokens, None)

    @torch.no_grad()
    def write(
        self, rows: int, length: int, temperature: float, seed: int, *, show: bool = False
    ) -> Tensor:
        """Tokens on the CPU, int64 (rows, length).

        Args:
            rows: how many texts; every second one begins with the start token.
            length: of each.
            temperature: of the draws.
            seed: of the draws.
            show: a progress bar on a terminal.
        """
        wanted = min(rows, max(AT_ONCE, STEP // self.macs))
        wanted = ceil(rows / ceil(rows / wanted))
        batching = Batching.of(self.example_inputs)
        size = batching.samples_at_once(self.model, self.example_inputs, wanted)
        batches = ceil(rows / size)
        generator = stream(seed)
        texts = torch.zeros(batches * size, length, dtype=torch.int64)
        texts[:, 0] = torch.randint(self.vocabulary, (len(texts),), generator=generator)
        if self.start is not None:
            texts[::2, 0] = self.start
        total = range(batches * (length - 1))
        bar = iter(tracked(total, "writing", total, show))
        for part in torch.split(texts, size):
            self._continue(part, temperature, generator, bar)
        next(bar, None)  # lets the bar close
        return texts[:rows]

    def _continue(
        self, rows: Tensor, temperature: float, generator: torch.Generator, bar: Iterator[int]
    ) -> None:
        """Writes on behind the first token of each row, in place."""
        cache: Any = None
        for place in range(1, rows.shape[1]):
            next(bar)
            if self.argument is not None:
                logits, cache = self._step(self.argument, rows[:, place - 1 : place], cache)
            elif self.any_length:
                logits = self.logits(rows[:, :place])[:, -1]
            else:
                logits = self.logits(rows)[:, place - 1]
            logits = logits.log() if self.probabilities else logits
            shares = (logits.double() / temperature).softmax(-1).cpu()
            if not bool(shares.isfinite().all()):
                raise CannotWriteError(self.model, "its outputs are not finite")
            rows[:, place] = torch.multinomial(shares, 1, generator=generator)[:, 0]

    def _argument(self, tokens: Tensor, logits: Tensor) -> str | None:
        """Name of what takes tokens beside a cache; None where that gives other outputs."""
        args, kwargs = normalise_inputs(self.example_inputs)
        taken = list(inspect.signature(self.model.forward).parameters)
        named = [*zip(taken, args, strict=False), *kwargs.items()]
        names = [name for name, value in named if isinstance(value, Tensor)]
        if self.position >= len(names) or not {"past_key_values", "use_cache"}.issubset(taken):
            return None
        cache: Any = None
        try:
            for place in range(tokens.shape[1]):
                found, cache = self._step(names[self.position], tokens[:, place, None], cache)
                if cache is None or not _same(found, logits[:, place]):
                    return None
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever the model's code says to a cache
            return None
        return names[self.position]

    def _step(self, argument: str, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """What follows the token of each row, (batch, V), and the cache behind it."""
        given = {argument: tokens.to(self._example), "past_key_values": cache, "use_cache": True}
        out = self.model.forward(**given)  # past the hook that takes caches away
        return out.logits[:, -1], out.past_key_values

    def _is_same(self, tokens: Tensor, logits: Tensor | None) -> bool:
        """Whether the network takes rows of another length, and returns the logits if given."""
        try:
            found = self.logits(tokens)
        except UsageError:
            return False
        return logits is None or _same(found, logits)


def _results(model: nn.Module, inputs: Any) -> list[Tensor]:
    return [one for one in tree_leaves(run(model, inputs)) if isinstance(one, Tensor)]


def _is_row_per_token(result: Tensor, shape: torch.Size) -> bool:
    return result.ndim == 3 and result.shape[:2] == shape and result.is_floating_point()


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal to rounding, where finite."""
    if one.shape != other.shape:
        return False
    finite = one.isfinite()
    size = torch.where(finite, one, 0).abs().max().clamp(min=torch.finfo(one.dtype).tiny)
    gap = torch.where(finite, one - other, 0).abs().max()
    return bool(torch.equal(finite, other.isfinite())) and bool(gap <= ROUNDING * size)

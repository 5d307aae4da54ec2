"""Written inputs: tokens that a language model draws from its own predictions.

A network that foretells the next token knows what texts look like; uniform tokens are none. Text of
the model's own is known as calibration data of quantisation and of pruning single weights (Williams
et al. 2025; Ji et al. 2025). Rows from the start token are what texts begin with, rows from a
random first token see more of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from torch import nn

from bequest.calibration.inputs.author import Author
from bequest.calibration.inputs.base import Source
from bequest.calibration.inputs.batching import Batching
from bequest.calibration.samples import Samples, chunk_of
from bequest.config import register
from bequest.errors import UsageError

EFFORT = 3 * 10**13
"""Multiply-accumulates of writing, at most: some twenty minutes on two cores, seconds on a GPU.
With a cache, the rows that are asked for take as many from 1.8 billion parameters on."""

FEWEST_ROWS, SHORTEST = 16, 8
"""Rows that there are at least, and tokens of each, where they would take more than that."""

WITHOUT_CACHE = 32
"""Tokens of a row, at most, where each takes a pass over all before it."""


@register("inputs", "written")
@dataclass(frozen=True)
class Written(Source):
    """Tokens that the network writes itself, each drawn from what it foretells.

    A network can write where it reads one batch of tokens, beside masks of ones, and returns
    (batch, length, V), V the rows of the table that tokens are looked up in, and where another last
    token leaves all outputs before it as they were. Every second row begins with the start token
    that the network's configuration names (``bos_token_id``, else ``decoder_start_token_id``), the
    others with a random one. Keys and values are cached where the network can do that
    (``past_key_values``); else rows have :data:`WITHOUT_CACHE` tokens, and there are more of them.
    What is written is laid out, row behind row, in rows of the example's length.

    Writing takes :data:`EFFORT` multiply-accumulates at most. Where it would take more, there are
    fewer rows, down to :data:`FEWEST_ROWS`, and then shorter ones; a note says so.

    Attributes:
        rows: texts that are written.
        length: tokens of each.
        temperature: of the draws; above 1, what is rare is drawn more often than foretold.
    """

    rows: int = 128
    length: int = 128
    temperature: float = 1.25

    def __post_init__(self) -> None:
        for name, kinds, least in (("rows", int, 1), ("length", int, 2), ("temperature", float, 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | kinds) or value < least:
                raise UsageError(f"written inputs: expected {name} ≥ {least}, found {value!r}")
        self.require_positive("temperature")

    def _make(self, model: nn.Module, example_inputs: Any, seed: int, show: bool) -> Samples:
        author = Author.of(model, example_inputs)
        rows, length = self._affordable(author)
        count = ceil(rows * length / author.length)
        batching = Batching.of(example_inputs)
        chunk = batching.samples_at_once(model, example_inputs, chunk_of(count))
        inputs = ceil(count / chunk) * chunk
        rows = ceil(inputs * author.length / length)
        texts = author.write(rows, length, self.temperature, seed, show=show)
        parts = texts.flatten()[: inputs * author.length].view(-1, chunk, author.length)
        chunks = tuple(tuple(author.arguments(part)) for part in parts)
        return Samples(chunks, real=False, notes=(self._note(rows, length),), written=True)

    def _affordable(self, author: Author) -> tuple[int, int]:
        """How many rows of how many tokens."""
        length = self.length
        if author.argument is None:
            length = min(length, WITHOUT_CACHE) if author.any_length else author.length
        if length > author.length and not author.bears(length):
            length = author.length
        rows = max(1, self.rows * self.length // length)
        most = EFFORT // (author.macs * author.passes(length))
        if rows * length > most:
            rows = min(rows, max(FEWEST_ROWS, most // length))
            if author.argument is not None or author.any_length:
                length = min(length, max(SHORTEST, most // rows))
        return rows, length

    def _note(self, rows: int, length: int) -> str:
        note = f"inputs: {rows} rows of {length} tokens, which the network has written itself"
        if rows * length >= self.rows * self.length:
            return note
        return (
            f"{note}: {self.rows} of {self.length} would take it more than {EFFORT:.0e} "
            "multiply-accumulates"
        )

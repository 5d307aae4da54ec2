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

GOES_ON = 4
"""Rows over which a text goes on: where windows of real text begin, texts rarely do."""

FEWEST_TEXTS, SHORTEST = 16, 8
"""Texts that there are at least, and tokens of each, where there can't be as many as asked for."""

WITHOUT_CACHE = 32
"""Tokens of a text, at most, where each takes a pass over all before it."""


@register("inputs", "written")
@dataclass(frozen=True)
class Written(Source):
    """Tokens that the network writes itself, each drawn from what it foretells.

    A network can write where it reads one batch of tokens, beside masks of ones, and returns
    (batch, length, V), V the rows of the table that tokens are looked up in, and where another last
    token leaves all outputs before it as they were. Every second text begins with the start token
    that the network's configuration names (``bos_token_id``, else ``decoder_start_token_id``), the
    others with a random one. Keys and values are cached where the network can do that
    (``past_key_values``), and a text goes on over :data:`GOES_ON` rows; else it has
    :data:`WITHOUT_CACHE` tokens, and there are more of them. What is written is laid out, text
    behind text, in rows of the example's length.

    Writing takes :data:`EFFORT` multiply-accumulates at most. Where it would take more, there are
    fewer texts, down to :data:`FEWEST_TEXTS`, and shorter ones; a note says so.

    Attributes:
        rows: of tokens that are written.
        length: of a row.
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
        total, length = self._affordable(author)
        count = ceil(total / author.length)
        batching = Batching.of(example_inputs)
        chunk = batching.samples_at_once(model, example_inputs, chunk_of(count))
        inputs = ceil(count / chunk) * chunk
        texts = ceil(inputs * author.length / length)
        written = author.write(texts, length, self.temperature, seed, show=show)
        parts = written.flatten()[: inputs * author.length].view(-1, chunk, author.length)
        chunks = tuple(tuple(author.arguments(part)) for part in parts)
        note = f"inputs: {texts} texts of {length} tokens, which the network has written itself"
        if total < self.rows * self.length:
            note += (
                f": {self.rows * self.length:,} tokens would take it more than {EFFORT:.0e} "
                "multiply-accumulates"
            )
        return Samples(chunks, real=False, notes=(note,), written=True)

    def _affordable(self, author: Author) -> tuple[int, int]:
        """How many tokens, and how many of them in each text."""
        asked = self.rows * self.length
        alone = author.argument is None
        if alone and not author.any_length:
            length = author.length
        else:
            length = WITHOUT_CACHE if alone else GOES_ON * self.length
            length = min(length, max(self.length, asked // FEWEST_TEXTS))
            length = length if author.bears(length) else min(length, author.length)
        total = min(asked, EFFORT // (author.macs * author.passes(length)))
        if total < asked and (author.any_length or not alone):
            length = min(length, max(SHORTEST, total // FEWEST_TEXTS))
        return max(total, min(asked, FEWEST_TEXTS * length)), length

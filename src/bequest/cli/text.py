"""``--text``: the tokens of a file, by the tokenizer that lies beside the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bequest.calibration.inputs import Source
from bequest.cli.inputs import InputForm
from bequest.cli.models import Opened
from bequest.cli.sources.library import imported, reason
from bequest.cli.values import refuse_beside, require_data
from bequest.data.text import read_texts
from bequest.errors import DataError, UsageError
from bequest.measure import Perplexity, perplexity

CALIBRATION = 128
"""Windows that are set apart to calibrate with, at most; half of the text stays to measure on."""

_OF_IMAGES = (
    "--data",
    "--attack",
    "--eps",
    "--limit",
    "--offset",
    "--batch-size",
    "--mean",
    "--std",
    "--sparsity",
)


@dataclass(frozen=True)
class Text:
    """A text in tokens, and how it is read.

    Attributes:
        tokens: int64 (n,).
        window: tokens that a network reads at once.
        stride: tokens from one window to the next; None = the window.
    """

    tokens: Tensor
    window: int
    stride: int | None = None

    def perplexity(self, model: nn.Module, *, progress: bool = True) -> Perplexity:
        """Of a network over the text, with a progress bar on a terminal."""
        return perplexity(
            model, self.tokens, window=self.window, stride=self.stride, progress=progress
        )

    def set_apart(self) -> tuple[Text, list[Tensor]]:
        """The text that measures, and the first windows of it, which a regression looks at.

        Raises:
            UsageError: the text is too short to be parted.
        """
        windows = min(CALIBRATION, len(self.tokens) // (2 * self.window))
        if not windows:
            raise UsageError(
                f"--calibrate sets windows of {self.window} tokens of --text apart and measures on "
                f"the others; found {len(self.tokens)} tokens in all"
            )
        first, rest = self.tokens[: windows * self.window], self.tokens[windows * self.window :]
        return Text(rest, self.window, self.stride), [first.view(windows, self.window)]


def check_text(
    text: Path | None,
    window: int | None,
    stride: int | None,
    given: frozenset[str],
    source: Source | None = None,
) -> None:
    """Checks the options of a text before anything is opened for it; ``--data`` may be a source.

    Raises:
        UsageError: options stand beside it that are of images, or of it where there is none.
    """
    refuse_beside("--text", _OF_IMAGES if source is None else _OF_IMAGES[1:], given)
    for option in ("--window", "--stride"):
        if text is None and option in given:
            raise UsageError(f"{option} says something of the text of --text; give --text FILE")
    if (window is not None and window < 2) or (stride is not None and stride < 1):
        raise UsageError(
            f"expected --window of at least 2 tokens and --stride of at least 1, found {window} "
            f"and {stride}"
        )


def require_one(
    data: Path | None,
    text: Path | None,
    window: int | None,
    stride: int | None,
    given: frozenset[str],
    *,
    alone: bool = False,
) -> None:
    """Checks that ``--data`` or ``--text`` is given, or neither where other things are asked for.

    Raises:
        UsageError: neither is given, or :func:`check_text` raises it.
    """
    check_text(text, window, stride, given)
    require_data(data or text, given)
    if (data or text) is None and not alone:
        raise UsageError("expected --data PATH or --text FILE, found neither")


def open_text(path: Path, opened: Opened, form: InputForm, stride: int | None) -> Text:
    """A file in the tokens of a network, in windows of the length that its form says.

    Args:
        path: any file of UTF-8, or a ``.parquet`` with a column ``text``.
        opened: the network, of ``hf:ID`` or ``hf:./FOLDER``.
        form: what it reads.
        stride: tokens from one window to the next; None = the window.

    Raises:
        UsageError: the network reads no tokens or has no tokenizer, the tokenizer is another
            network's, or the file holds no text, or one shorter than a window.
    """
    spec = opened.dense or opened.spec
    if form.vocabulary is None or form.size is None or not spec.startswith("hf:"):
        raise UsageError(
            f"--text: expected a network that reads tokens and has a tokenizer, hf:ID or "
            f"hf:./FOLDER, found {spec}"
        )
    try:
        texts = read_texts(path)
    except DataError as error:
        raise UsageError(f"--text: {error}") from error
    window = form.size[0]
    tokens = _tokens(spec, texts)
    if len(tokens) < window:
        raise UsageError(
            f"--text: expected at least one window of {window} tokens, found {len(tokens)} in "
            f"{path}; give more text, or a smaller --window"
        )
    if int(tokens.max()) >= form.vocabulary:
        raise UsageError(
            f"--text: the tokenizer of {spec} gives the token {int(tokens.max())}, and the network "
            f"knows {form.vocabulary}; is it another network's?"
        )
    return Text(tokens, window, stride)


def _tokens(spec: str, texts: list[str]) -> Tensor:
    transformers = imported("transformers", "hf", spec)
    word = spec.removeprefix("hf:")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(word, trust_remote_code=False)
    except Exception as error:  # each kind of tokenizer has its own
        raise UsageError(
            f"--text: expected a tokenizer (tokenizer.json) beside the weights of {spec}, found "
            f"none: {reason(error)}"
        ) from error
    ids = [token for text in texts for token in tokenizer(text, verbose=False)["input_ids"]]
    return torch.tensor(ids, dtype=torch.int64)

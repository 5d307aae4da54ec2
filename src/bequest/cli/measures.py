"""What networks are measured on: labelled images, or a text; a part of it can be set apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bequest.calibration.inputs import Source
from bequest.calibration.inputs.base import FEWEST
from bequest.cli.inputs import InputForm, parse_data
from bequest.cli.models import Opened
from bequest.cli.text import Text, check_text, open_text
from bequest.data import ImageLoader
from bequest.errors import UsageError
from bequest.measure import Accuracy, Perplexity, evaluate


def parse_measures(
    data: str | None,
    text: Path | None,
    window: int | None,
    stride: int | None,
    given: frozenset[str],
) -> tuple[Path | None, Source | None]:
    """The images or the source of inputs that ``--data`` names, beside the options of a text.

    Raises:
        UsageError: as :func:`~bequest.cli.inputs.parse_data` and
            :func:`~bequest.cli.text.check_text` say.
    """
    path, source = parse_data(data, given, text)
    check_text(text, window, stride, given, source)
    return path, source


@dataclass(frozen=True)
class Measures:
    """Images or a text, or neither."""

    images: ImageLoader | None = None
    text: Text | None = None

    @classmethod
    def open(
        cls,
        images: Path | None,
        text: Path | None,
        opened: Opened,
        form: InputForm,
        *,
        limit: int | None,
        offset: int,
        batch_size: int,
        stride: int | None,
    ) -> Measures:
        """Opens the files that ``--data`` and ``--text`` name, as the network reads them.

        Raises:
            UsageError: there is nothing, or it is nothing for the network.
            DataError: it can't be read.
        """
        if text is not None:
            return cls(text=open_text(text, opened, form, stride))
        if images is None:
            return cls()
        return cls(form.images(images, limit=limit, offset=offset, batch_size=batch_size))

    def set_apart(self) -> tuple[Measures, Iterable[Any]]:
        """What measures, and the first images or windows, which a regression looks at instead.

        Raises:
            UsageError: there are none, or too few to be parted.
        """
        if self.text is not None:
            rest, first = self.text.set_apart()
            return Measures(text=rest), first
        if self.images is None:
            raise UsageError(
                "--calibrate takes the first images of --data or the first windows of --text; "
                "give --data PATH or --text FILE"
            )
        count = self.images.count
        if count <= FEWEST:
            raise UsageError(
                f"--calibrate sets {FEWEST} images of --data apart and measures on the others; "
                f"found {count} in all"
            )
        return Measures(self.images.subset(FEWEST, count)), self.images.subset(0, FEWEST)

    def accuracy(self, model: nn.Module) -> Accuracy:
        """Over the images, or of the next tokens of the text."""
        accuracy, read = self.of(model, progress=False)
        if read is not None:
            return Accuracy(read.top1, None, read.loss, read.tokens, 0)
        assert accuracy is not None
        return accuracy

    def of(
        self, model: nn.Module, *, progress: bool = True
    ) -> tuple[Accuracy | None, Perplexity | None]:
        """The accuracy, or the perplexity; None where there is nothing to measure it on."""
        return (
            None if self.images is None else evaluate(model, self.images, progress=progress),
            None if self.text is None else self.text.perplexity(model, progress=progress),
        )

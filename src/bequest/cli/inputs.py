"""What a network reads: the shape of one input, and how images are brought to it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bequest import config
from bequest.artifact import fields
from bequest.calibration.inputs import Source
from bequest.cli.values import (
    parse_channel_values,
    parse_config,
    parse_size,
    parse_tokens,
    require_data,
)
from bequest.data import ImageLoader, Preprocessing, open_images
from bequest.errors import UsageError

_LARGEST = 2**28


@dataclass(frozen=True)
class InputForm:
    """Shape and normalisation of one input; None where nobody has said it yet.

    Attributes:
        size: shape without the batch dimension, (C, H, W) for images.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        crop: share of a resized image that the centre crop keeps.
        interpolation: how images are resized.
        vocabulary: number of tokens, where the input is a text of them; None for numbers.
    """

    size: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: float = 1.0
    interpolation: str = "bilinear"
    vocabulary: int | None = None

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> InputForm:
        """The form that a network of the zoo was trained with."""
        return cls(**dataclasses.asdict(preprocessing))

    @classmethod
    def from_json(cls, value: object) -> InputForm:
        """Reads :meth:`to_json`'s form.

        Raises:
            ArtifactError: a field is not what it must be.
        """
        where = "recipe.input"
        names = [field.name for field in dataclasses.fields(cls)]
        size, mean, std, crop, interpolation, vocabulary = fields.record(value, where, *names)

        def numbers(held: object, name: str) -> tuple[float, ...] | None:
            if held is None:
                return None
            items = fields.sequence(held, f"{where}.{name}")
            return tuple(fields.finite(item, f"{where}.{name}") for item in items)

        return cls(
            size=None if size is None else fields.integers(size, f"{where}.size", least=1),
            mean=numbers(mean, "mean"),
            std=numbers(std, "std"),
            crop=fields.finite(crop, f"{where}.crop"),
            interpolation=fields.text(interpolation, f"{where}.interpolation"),
            vocabulary=None
            if vocabulary is None
            else fields.integer(vocabulary, f"{where}.vocabulary", least=1),
        )

    def to_json(self) -> dict[str, Any]:
        """As a saved plan holds it."""
        return dataclasses.asdict(self)

    def overridden(
        self, size: str | None, mean: str | None, std: str | None, window: int | None = None
    ) -> InputForm:
        """What the options say in place of what is known.

        Raises:
            UsageError: an option can't be read.
        """
        form = self if window is None else replace(self, size=(window,))
        if size is not None and "/" in size:
            length, vocabulary = parse_tokens(size)
            form = replace(form, size=(length,), vocabulary=vocabulary)
        elif size is not None:
            channels = 3 if self.size is None else self.size[0]
            given = parse_size(size, channels)
            form = replace(form, size=given if self.vocabulary is None else given[-1:])
        if form.vocabulary is not None and (mean, std) != (None, None):
            raise UsageError(
                "--mean, --std: expected none, as the network reads tokens, which have no scale"
            )
        channels = 3 if form.size is None else form.size[0]
        if mean is not None:
            form = replace(form, mean=parse_channel_values(mean, "--mean", channels))
        if std is not None:
            form = replace(form, std=parse_channel_values(std, "--std", channels))
        return form

    def example(self, device: torch.device) -> torch.Tensor:
        """Zeros of the shape of one input, with a batch dimension of 1; int64 for tokens.

        Raises:
            UsageError: the shape is not known, or larger than any image.
        """
        if self.size is None:
            raise UsageError(
                "the shape of the network's input is not known; give it, e.g. --size 3x224x224, or "
                "--size 64/512 for 64 tokens of a vocabulary of 512"
            )
        if math.prod(self.size) > _LARGEST:
            raise UsageError(
                f"--size: expected an input of at most {_LARGEST:,} values, found "
                f"{'x'.join(map(str, self.size))}"
            )
        dtype = None if self.vocabulary is None else torch.int64
        return torch.zeros(1, *self.size, dtype=dtype, device=device)

    def value_range(self) -> tuple[float, float] | None:
        """The lowest and highest value that a pixel in [0, 1] can become; None if unknown."""
        if self.mean is None or self.std is None or not all(self.std):
            return None
        ends = [((0 - m) / s, (1 - m) / s) for m, s in zip(self.mean, self.std, strict=True)]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def images(self, path: Path, *, limit: int | None, offset: int, batch_size: int) -> ImageLoader:
        """The labelled images at ``path``, brought to this form.

        Raises:
            UsageError: the form is not known or not that of images; there is nothing at ``path``.
            DataError: the images can't be read.
        """
        if self.size is None or len(self.size) != 3:
            found = "nothing" if self.size is None else "x".join(map(str, self.size))
            if self.vocabulary is not None:
                found = f"{found}/{self.vocabulary}: the network reads tokens"
            raise UsageError(f"--size: expected CxHxW of one image with --data, found {found}")
        if self.mean is None or self.std is None:
            raise UsageError(
                "--data needs the mean and standard deviation that the network was trained with; "
                "give --mean and --std, e.g. --mean 0.5 --std 0.5"
            )
        channels, height, width = self.size
        return open_images(
            path,
            mean=self.mean,
            std=self.std,
            size=(channels, height, width),
            crop=self.crop,
            interpolation=self.interpolation,
            batch_size=batch_size,
            limit=limit,
            offset=offset,
        )


def parse_data(
    text: str | None, given: frozenset[str], read: Path | None = None
) -> tuple[Path | None, Source | None]:
    """The images that ``--data`` names, or what makes the inputs; what exists is a path.

    Args:
        text: a path, or a source of inputs as :func:`parse_config` reads it.
        given: the options on the command line.
        read: the file of ``--text``.

    Raises:
        UsageError: there is no such file or folder, and no such source of inputs; or options stand
            beside it that ask for something else.
    """
    path, source = None, None
    if text is not None and Path(text).exists():
        path = Path(text)
    elif text is not None:
        known = config.names("inputs")
        if text.partition("(")[0].strip() not in known:
            raise UsageError(
                "--data: expected a file or folder of images, or a source of inputs "
                f"({', '.join(known)}), found nothing at {text} and no source of that name"
            )
        for option in ("--strategy", "--sparsity"):
            if option in given:
                raise UsageError(f"--data {text} and {option} don't go together; leave one out")
        source = parse_config(text, "inputs", "--data")
    require_data(path or read, given)
    if source is not None and "--calibrate" in given:
        raise UsageError(f"--data {text} and --calibrate don't go together; leave one out")
    return path, source

"""Random changes of the training images, by Kornia: on whole batches, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bequest.errors import MissingExtraError

AUGMENTATIONS = ("crop", "flip")
"""crop: shifted by up to an eighth of the side, what comes in from outside is the mean colour;
flip: left and right exchanged for every second image."""


class Augmentation:
    """Augments the share of a batch that this process holds.

    The draws are made for the whole batch and by one seed per step, so that they are the same
    however many processes share the batch, and again after an interruption.

    Args:
        names: from :data:`AUGMENTATIONS`.
        size: (C, H, W) of an image.

    Raises:
        MissingExtraError: Kornia is not installed.
    """

    def __init__(self, names: Sequence[str], size: tuple[int, ...]) -> None:
        self._changes: list[Any] = []
        if not names:
            return
        try:
            from kornia.augmentation import RandomCrop, RandomHorizontalFlip
        except ImportError as error:
            raise MissingExtraError("kornia", "train", "augmenting images") from error
        height, width = size[1:]
        border = (max(height // 8, 1), max(width // 8, 1))
        made = {
            "crop": RandomCrop((height, width), padding=(border[1], border[0]), p=1.0),
            "flip": RandomHorizontalFlip(p=0.5),
        }
        self._changes = [made[name] for name in names]

    def __call__(self, x: Tensor, seed: int, share: slice, batch: int) -> Tensor:
        """The augmented images.

        Args:
            x: (b, C, H, W), images ``share`` of the batch.
            seed: of this step's draws; the global generators are left alone.
            share: which of the batch's images these are.
            batch: number of images of the whole batch.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for change in self._changes:
                drawn = change.forward_parameters(torch.Size((batch, *x.shape[1:])))
                own = {
                    key: value[share] if len(value) == batch else value
                    for key, value in drawn.items()
                }
                own["forward_input_shape"] = torch.tensor(x.shape)
                x = change(x, params=own)
        return x

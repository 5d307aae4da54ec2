"""From decoded images to a network's input."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from bequest.errors import UsageError

_MODES = {1: "L", 3: "RGB"}
_RESAMPLING = {filter.name.lower(): filter for filter in Image.Resampling}


@dataclass(frozen=True)
class Preprocessing:
    """Size, colour and normalisation that a network expects of its images.

    An image of another size is resized (antialiased) so that it just covers (H, W)/crop, and the
    middle H x W is taken. One rule holds for files and arrays: a grey image is repeated over three
    channels, a colour image becomes its luma
    (0.299 R + 0.587 G + 0.114 B) for a one-channel network.

    Attributes:
        mean: per channel, subtracted from pixels in [0, 1].
        std: per channel, divided by afterwards.
        size: (C, H, W), C either 1 (grey) or 3 (RGB).
        crop: share of the resized image's sides that is kept, in (0, 1]; 0.875 with H = W = 224
            is ImageNet's "shorter side to 256, centre crop of 224".
        interpolation: of resizing; Pillow's name in lower case, "bilinear" or "bicubic" mostly.

    Raises:
        UsageError: a value out of range, or mean and std that don't have C values.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int, int]
    crop: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1 or self.size[0] not in _MODES:
            raise UsageError(
                f"size: expected (C, H, W) with C = 1 or 3 and positive H, W, found {self.size}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.size[0] or not all(math.isfinite(v) for v in values):
                raise UsageError(
                    f"{name}: expected {self.size[0]} finite values, one per channel, "
                    f"found {values}"
                )
        if min(self.std) <= 0:
            raise UsageError(f"std: expected positive values, found {self.std}")
        if not 0 < self.crop <= 1:
            raise UsageError(f"crop: expected a share in (0, 1], found {self.crop}")
        if self.interpolation not in _RESAMPLING:
            raise UsageError(
                f"interpolation: expected one of {', '.join(_RESAMPLING)}; "
                f"found {self.interpolation!r}"
            )

    def fit(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One image, brought to the network's size and channels.

        Args:
            image: a decoded 8-bit image, or its pixels, (h, w, 1) or (h, w, 3).

        Returns:
            uint8 (H, W, C).
        """
        channels, height, width = self.size
        if isinstance(image, np.ndarray):
            if image.shape == (height, width, channels):
                return image
            image = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        image = image.convert(_MODES[channels])
        if image.size != (width, height):
            border = (1 - self.crop) / 2
            how = _RESAMPLING[self.interpolation]
            image = ImageOps.fit(image, (width, height), how, border)
        return np.asarray(image).reshape(height, width, channels)

    def normalise(self, images: NDArray[np.uint8]) -> Tensor:
        """(pixels/255 - mean)/std: uint8 (B, H, W, C) → float32 (B, C, H, W), contiguous."""
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(torch.float32)
        mean, std = (
            torch.tensor(v, dtype=x.dtype, device=x.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        return x.div_(255).sub_(mean).div_(std)

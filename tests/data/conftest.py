"""Images on disk, in every format, with pixels that a test can predict."""

from __future__ import annotations

import numpy as np
import pytest

from bequest.data import open_images


@pytest.fixture
def pixels():
    """uint8 (N, H, W, C), seeded."""

    def make(*shape):
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    return make


@pytest.fixture
def opened():
    """Opens images that are only divided by 255: mean 0, std 1."""

    def make(path, size=(3, 8, 8), **options):
        channels = size[0]
        return open_images(path, mean=[0.0] * channels, std=[1.0] * channels, size=size, **options)

    return make

"""Images for training and a small recipe."""

from __future__ import annotations

import numpy as np
import pytest

import bequest
from bequest.execution.threads import threads_of_torch


@pytest.fixture(autouse=True)
def _one_thread():
    with threads_of_torch(1):
        yield


@pytest.fixture
def archive(tmp_path):
    """96 images of four classes that a small network can tell apart."""
    generator = np.random.default_rng(0)
    labels = np.arange(96) % 4
    images = generator.integers(0, 128, (96, 6, 6, 3))
    for image, label in zip(images, labels, strict=True):
        image[..., :label] += 60  # 0 to 3 brighter colours
    path = tmp_path / "images.npz"
    np.savez(path, x=images.clip(0, 255).astype(np.uint8), y=labels)
    return path


@pytest.fixture
def images(archive):
    return bequest.data.open_images(
        archive, mean=(0.4,) * 3, std=(0.25,) * 3, size=(3, 6, 6), batch_size=32
    )

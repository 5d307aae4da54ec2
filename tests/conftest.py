"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch

from bequest.calibration.inputs import base
from bequest.restorers import regression

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # several workers fill the cores


def pytest_collection_finish() -> None:
    """What was imported stays: looking through it for garbage took a seventh of the time."""
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture
def shared() -> Path:
    """The folder of real weights and images; tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("BEQUEST_SHARED", default))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no real weights and images at {folder}; set BEQUEST_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test doesn't say how many inputs are looked at, a few will do."""
    monkeypatch.setattr(base, "FEWEST", 64)
    monkeypatch.setattr(base, "MOST", 64)


@pytest.fixture(autouse=True)
def _closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test doesn't say by how many steps layers are refined, the closed form will do."""
    monkeypatch.setattr(regression, "MOST_STEPS", 0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)

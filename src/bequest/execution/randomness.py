"""Seeds and what is drawn from them: on the CPU, so that every device sees the same numbers."""

from __future__ import annotations

import random
from numbers import Integral
from typing import Any

import numpy as np
import torch

from bequest.errors import UsageError

SEEDS = 2**64
"""Number of seeds that a generator tells apart."""


def check_seed(value: Any) -> int:
    """A seed that every generator takes.

    Raises:
        UsageError: it isn't a whole number in [0, 2⁶⁴).
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < SEEDS:
        raise UsageError(
            f"seed: expected a whole number of at least 0 and under 2⁶⁴, found {value!r}"
        )
    return int(value)


def stream(seed: int) -> torch.Generator:
    """A generator on the CPU, whatever the default device is.

    Raises:
        UsageError: ``seed`` isn't a whole number in [0, 2⁶⁴).
    """
    return torch.Generator("cpu").manual_seed(check_seed(seed))


def begin_at(seed: int, device: torch.device) -> None:
    """Sets the global generators, which a network's own code may draw from.

    Of Python, NumPy, and PyTorch on the CPU and on a device. For use inside of
    :func:`bequest.execution.running.undisturbed`, which sets them back.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 -- the one that code draws from without a word
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)

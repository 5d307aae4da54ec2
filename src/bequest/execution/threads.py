"""Threads: what only one at a time may do, and how many a computation takes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

ONE_AT_A_TIME = threading.RLock()
"""Held while a network is traced or pruned: torch.export and the modes that PyTorch counts and
records with are one for all threads."""


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Operators take ``count`` threads inside, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

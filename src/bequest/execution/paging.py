"""Lets tensors that lie in a mapped file leave memory until they are read again.

transformers maps the weights of a folder into memory. What has been read of them stays there until
the system wants the room; a walk that is through with a layer can say so at once.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

from torch import Tensor, nn

MADV_PAGEOUT = 21
"""Linux 5.4: pages may be reclaimed now. A hint: nothing that they hold is lost."""

LARGE = 2**20
"""Bytes from which a tensor is worth a word to the system."""


def let_go(*tensors: Tensor) -> None:
    """Lets the pages of large tensors that lie in mapped files leave memory.

    Others are left alone, as are all on systems other than Linux.
    """
    large = [one for one in tensors if one.device.type == "cpu" and one.nbytes >= LARGE]
    if sys.platform != "linux" or not large:
        return
    files = _mapped_files()
    advise = ctypes.CDLL(None).madvise
    for tensor in large:
        first = tensor.data_ptr()
        first, last = -(-first // mmap.PAGESIZE), (first + tensor.nbytes) // mmap.PAGESIZE
        address, size = first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE
        if size > 0 and any(start <= address and address + size <= end for start, end in files):
            advise(ctypes.c_void_p(address), ctypes.c_size_t(size), MADV_PAGEOUT)


def let_go_behind(model: nn.Module) -> nn.Module:
    """The same model, each of whose modules lets its tensors go when it has run."""

    def behind(module: nn.Module, *_: object) -> None:
        let_go(*module.parameters(recurse=False))

    for module in model.modules():
        module.register_forward_hook(behind)
    return model


def _mapped_files() -> list[tuple[int, int]]:
    """First and last address of each file of numbers that is mapped into memory."""
    found = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        place, modes, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0" and "x" not in modes:
            start, end = (int(each, 16) for each in place.split("-"))
            found.append((start, end))
    return found

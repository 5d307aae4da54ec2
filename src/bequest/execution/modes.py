"""What the caller's surroundings would do to a computation, and how it escapes them.

Inference mode makes tensors that no gradient can pass, autocast rounds products to half precision,
and TF32 rounds them to ten bits on a GPU: none of it is meant for sums over many rows, or for the
weights of a network that is handed back.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
_WARNED, _REFUSED = 1, 2  # of torch.set_deterministic_debug_mode


def in_plain_mode(function: Callable[P, R]) -> Callable[P, R]:
    """The function outside of inference mode, autocast and TF32, wherever it is called from."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            for kind in _AUTOCAST:
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.cuda.is_available():
                stack.enter_context(_on_a_gpu())
            return function(*args, **kwargs)

    return wrapper


class _Held:
    """The settings as they were before the first of the threads at work came in."""

    lock = threading.Lock()
    inside = 0
    precisions: tuple[Any, ...] = ()
    strict = False


@contextmanager
def _on_a_gpu() -> Iterator[None]:
    """Settings of the whole process for work on a GPU.

    Products and convolutions are in single precision. An operator that can't repeat its bits is
    warned of, not refused, where the caller asks for deterministic ones: images are fitted by
    gradients, and those of pooling and of interpolation are such.
    """
    cudnn: Any = torch.backends.cudnn
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv)
    with _Held.lock:
        if not _Held.inside:
            _Held.precisions = tuple(backend.fp32_precision for backend in backends)
            for backend in backends:
                backend.fp32_precision = "ieee"
            _Held.strict = torch.get_deterministic_debug_mode() == _REFUSED
            if _Held.strict:
                torch.set_deterministic_debug_mode(_WARNED)
        _Held.inside += 1
    try:
        yield
    finally:
        with _Held.lock:
            _Held.inside -= 1
            if not _Held.inside:
                for backend, value in zip(backends, _Held.precisions, strict=True):
                    backend.fp32_precision = value
                if _Held.strict:
                    torch.set_deterministic_debug_mode(_REFUSED)

"""Wall-clock time of a forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bequest.errors import UsageError
from bequest.execution.devices import device_of
from bequest.execution.modules import require_module
from bequest.execution.running import Inputs, evaluation_mode, run
from bequest.execution.threads import threads_of_torch


@dataclass(frozen=True)
class Latency:
    """Times of repeated forward passes over the same inputs.

    Attributes:
        median: in milliseconds.
        p10: the 10th percentile, in milliseconds.
        p90: the 90th percentile, in milliseconds.
        repeats: number of timed passes.
        threads: of the CPU, during the measurement.
        device: where the model ran, e.g. "cpu" or "cuda:0".
    """

    median: float
    p10: float
    p90: float
    repeats: int
    threads: int
    device: str


def latency(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    repeats: int = 30,
    warmup: int = 5,
    threads: int | None = None,
) -> Latency:
    """Times ``repeats`` forward passes after ``warmup`` untimed ones.

    On a CUDA device each pass is timed between two events on the stream, elsewhere by the clock.

    Args:
        model: any module.
        example_inputs: a tensor, or a tuple or dict of arguments, on the model's device.
        repeats: timed passes.
        warmup: passes before them, which fill caches and choose kernels.
        threads: CPU threads during the measurement; None = as many as PyTorch uses now.

    Raises:
        UsageError: ``repeats`` or ``threads`` below 1, or ``warmup`` below 0; a model that is no
            module, or fails on the inputs.
    """
    return latencies([model], example_inputs, repeats=repeats, warmup=warmup, threads=threads)[0]


def latencies(
    models: Sequence[nn.Module],
    example_inputs: Inputs,
    *,
    repeats: int = 30,
    warmup: int = 5,
    threads: int | None = None,
) -> list[Latency]:
    """Times several networks in turn, pass by pass, so that a busy machine slows all of them.

    Args:
        models: any modules, all on one device.
        example_inputs: as in :func:`latency`, of all of them.
        repeats: timed passes of each.
        warmup: passes of each before them.
        threads: as in :func:`latency`.

    Raises:
        UsageError: as in :func:`latency`.
    """
    threads = torch.get_num_threads() if threads is None else threads
    for name, value, least in (
        ("repeats", repeats, 1),
        ("warmup", warmup, 0),
        ("threads", threads, 1),
    ):
        if value < least:
            raise UsageError(f"{name}: expected at least {least}, found {value}")
    for model in models:
        require_module(model)
    device = device_of(models[0])
    timed_pass = _timed_on_cuda if device.type == "cuda" else _timed_by_clock
    with ExitStack() as modes, threads_of_torch(threads):
        for model in models:
            modes.enter_context(evaluation_mode(model))
        for _ in range(warmup):
            for model in models:
                run(model, example_inputs)
        times = [[timed_pass(model, example_inputs) for model in models] for _ in range(repeats)]
    found = np.percentile(times, (10, 50, 90), axis=0).T.tolist()
    return [Latency(median, p10, p90, repeats, threads, str(device)) for p10, median, p90 in found]


def timed_in_turn(
    passes: Sequence[Callable[[], object]], repeats: int, warmup: int, device: str
) -> list[Latency]:
    """Times anything that can be called, in turn, by the clock.

    Args:
        passes: each is one pass of something.
        repeats: timed calls of each.
        warmup: calls of each before them.
        device: what is said of where they ran.
    """
    for _ in range(warmup):
        for one in passes:
            one()
    times = [[_by_clock(one) for one in passes] for _ in range(repeats)]
    found = np.percentile(times, (10, 50, 90), axis=0).T.tolist()
    threads = torch.get_num_threads()
    return [Latency(median, p10, p90, repeats, threads, device) for p10, median, p90 in found]


def _by_clock(run_once: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    run_once()
    return (time.perf_counter_ns() - start) / 1e6


def _timed_by_clock(model: nn.Module, inputs: Inputs) -> float:
    return _by_clock(lambda: run(model, inputs))


def _timed_on_cuda(model: nn.Module, inputs: Inputs) -> float:
    with torch.cuda.device(device_of(model)):
        start, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        torch.cuda.synchronize()  # the last pass must not run into this one
        start.record()
        run(model, inputs)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

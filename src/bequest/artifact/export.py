"""ONNX: the network as a file that other runtimes execute, compared with PyTorch before it appears.

PyTorch's own ``.pt2`` is not offered: reading one back goes through pickle.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bequest.artifact.dynamic import dynamic_shapes, shapes_of
from bequest.atomic import replacing
from bequest.errors import MissingExtraError, ModelError, UsageError
from bequest.execution.copies import private_copy
from bequest.execution.modules import require_module
from bequest.execution.randomness import stream
from bequest.execution.running import run
from bequest.graph.inputs import Inputs, mapped, normalise_inputs, tensors_of

TOLERANCE = 1e-4
"""Largest difference from PyTorch, relative to the largest output (absolute below 1)."""

_LARGEST = 2**31 - 2**20  # bytes of tensors: what one ONNX file holds


def export(
    model: nn.Module,
    example_inputs: Any,
    path: str | os.PathLike[str],
    *,
    dynamic: Sequence[str] = (),
) -> float:
    """Writes ``model`` as an ONNX file, once onnxruntime was seen to compute the same.

    The file takes inputs of exactly the example's shapes on any runtime, but for what is
    ``dynamic``: that was tried with other numbers, too. Both sides are shown the same inputs:
    standard normal numbers in the place of floating-point tensors, whole numbers as the example
    has them.

    Args:
        model: a network, pruned or not; exported in evaluation mode, and left as it is.
        example_inputs: a tensor, tuple or dict on the model's device.
        path: the file, ``.onnx``; an existing one is replaced.
        dynamic: what may differ from the example: "batch", the first dimension of all tensors that
            have as many entries as the first one; "size", height and width of images.

    Returns:
        max |onnxruntime - PyTorch| / max(1, max |PyTorch|) over all floating-point outputs.

    Raises:
        UsageError: the path is no ``.onnx`` in an existing folder, the inputs are no inputs, or
            ``dynamic`` holds something else.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ModelError: the network can't be exported, is over 2 GB, takes no other batch or size, or
            onnxruntime computes something else; no file is written then.
    """
    require_module(model)
    target = Path(path) if isinstance(path, str | os.PathLike) else None
    if target is None or target.suffix.lower() != ".onnx" or not target.parent.is_dir():
        raise UsageError(f"export: expected NAME.onnx in a folder that exists, found {path}")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _require(package)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size > _LARGEST:
        raise ModelError(f"export: expected at most 2 GB of tensors, found {size / 1e9:.1f} GB")
    shown = [_inputs(one) for one in shapes_of(example_inputs, dynamic)]
    with replacing(target) as partial:
        copied = private_copy(model)  # that keeps no cache
        with torch.no_grad(), _quiet():
            expected = [_floating(run(copied, kwargs or args)) for args, kwargs in shown]
            _write(copied, shown[0], dynamic_shapes(shown[0], dynamic), partial)
        pairs = zip(shown, expected, strict=True)
        found = [_difference(_run(partial, *one), wanted) for one, wanted in pairs]
        difference = max(found, key=lambda one: (one != one, one))  # NaN first  # noqa: PLR0124
        if not difference <= TOLERANCE:
            raise ModelError(
                f"export: onnxruntime computes something else than PyTorch: the outputs differ by "
                f"{difference:.1e}, expected at most {TOLERANCE:.0e}. No file was written"
            )
    return difference


def runner(model: nn.Module, example_inputs: Any) -> Callable[[], object]:
    """What runs a network once on the example inputs by onnxruntime, on the CPU.

    As many threads work as PyTorch uses.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ModelError: as :func:`export`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        export(model, example_inputs, path)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    feed = _feed(session, *_inputs(example_inputs))
    return lambda: session.run(None, feed)


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or package, "onnx", "writing ONNX") from error


def _inputs(example_inputs: Any) -> Inputs:
    generator = stream(0)

    def drawn(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        values = torch.randn(value.shape, generator=generator, device="cpu")
        return values.to(value.device, value.dtype)

    inputs: Inputs = mapped(normalise_inputs(example_inputs), drawn)
    return inputs


def _write(model: nn.Module, inputs: Inputs, dynamic: Any, path: Path) -> None:
    args, kwargs = inputs
    try:
        program = torch.onnx.export(
            model,
            args,
            kwargs=kwargs,
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
            external_data=False,
        )
        assert program is not None
        program.save(path)
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ModelError(
            f"export: {type(model).__name__} can't be written as ONNX: "
            f"{type(error).__name__}: {reason[:200]}"
        ) from error


def _run(path: Path, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[NDArray[Any]]:
    """Every floating-point output of the file, computed by onnxruntime on the CPU."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs = session.run(None, _feed(session, args, kwargs))
    except Exception as error:
        shapes = [tuple(tensor.shape) for tensor in tensors_of((args, kwargs))]
        raise ModelError(
            f"export: onnxruntime can't run the file on inputs of {shapes}: {error}"
        ) from error
    return [value for value in outputs if np.issubdtype(value.dtype, np.floating)]


def _feed(session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The inputs by the names that a file has for them."""
    names = [entry.name for entry in session.get_inputs()]
    pairs = zip(names, tensors_of((args, kwargs)), strict=True)
    return {name: tensor.cpu().numpy() for name, tensor in pairs}


def _floating(output: Any) -> list[Tensor]:
    """The floating-point tensors in a network's output, in order."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    items = output.values() if isinstance(output, Mapping) else output
    if not isinstance(items, list | tuple) and not isinstance(output, Mapping):
        return []
    return [tensor for item in items for tensor in _floating(item)]


def _difference(found: list[NDArray[Any]], expected: list[Tensor]) -> float:
    shapes = [tuple(tensor.shape) for tensor in expected]
    if [value.shape for value in found] != shapes:
        raise ModelError(
            f"export: onnxruntime gives outputs of {[value.shape for value in found]}, expected "
            f"{shapes}"
        )
    worst = 0.0
    for value, tensor in zip(found, expected, strict=True):
        reference = tensor.detach().cpu().double().numpy()
        scale = max(1.0, float(np.abs(reference).max(initial=0)))
        difference = float(np.abs(value.astype(np.float64) - reference).max(initial=0)) / scale
        worst = max(worst, difference) if difference == difference else float("nan")  # noqa: PLR0124
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's log; what matters of it is in the error that it raises."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""The user's own inputs: batches of any length, checked and laid out in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bequest.calibration.inputs.base import Source, affordable, macs_of_one
from bequest.calibration.inputs.batching import Batching
from bequest.calibration.samples import Samples, dividing, kind_of
from bequest.errors import UsageError
from bequest.execution.devices import device_of
from bequest.execution.precision import working_dtype
from bequest.graph.inputs import normalise_inputs, require_dense, tensors_of
from bequest.graph.trace import Network
from bequest.graph.vocabulary import tables


@dataclass(frozen=True)
class Given(Source):
    """The user's own inputs.

    Attributes:
        batches: as :func:`collect` takes them.
        images: how many inputs at most; None = as many as are affordable.
    """

    name: ClassVar[str] = "given"

    batches: Iterable[Any]
    images: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Nothing: that they are real is said of the inputs."""
        return {}

    def _make(self, model: nn.Module, example_inputs: Any, seed: int, show: bool) -> Samples:
        most = self.images or affordable(macs_of_one(model, example_inputs))
        return collect(model, self.batches, example_inputs, most)


def collect(model: nn.Module, data: Iterable[Any], example_inputs: Any, most: int) -> Samples:
    """The first ``most`` inputs of an iterable of batches, in chunks of one size.

    All of them are used: where no size of chunks divides them, the last chunk is filled with the
    first inputs.

    Args:
        model: the dense network.
        data: batches as loaders give them: a tensor, or a tuple or list that begins with the
            network's arguments (labels behind them are not read), or a mapping with them.
        example_inputs: the network's example inputs, whose shapes and kinds of numbers decide.
        most: how many inputs at most.

    Raises:
        UsageError: there is no data, it doesn't fit the example inputs, or nothing varies in it.
    """
    examples = tensors_of(normalise_inputs(example_inputs))
    batching = Batching.of(example_inputs)
    gathered: list[list[Tensor]] = [[] for _ in examples]
    found = 0
    for batch in _batches(data):
        parts = _checked(_arguments(batch, example_inputs), examples, batching)
        for held, part, one in zip(gathered, parts, examples, strict=True):
            held.append(part.detach().to(device_of(model), working_dtype(one.dtype)))
        found += len(next(p for i, p in enumerate(parts) if i not in batching.whole))
        if found >= most:
            break
    if not found:
        raise UsageError("data: expected batches of inputs, found none")
    count = min(most, found)
    columns = [
        _unchanging(values) if i in batching.whole else torch.cat(values)[:count]
        for i, values in enumerate(gathered)
    ]
    for value in columns:
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise UsageError("data: expected finite inputs, found NaN or infinite values")
    _refuse_constant([c for i, c in enumerate(columns) if i not in batching.whole])
    return _chunked(columns, batching, model, example_inputs)


def _chunked(
    columns: list[Tensor], batching: Batching, model: nn.Module, example_inputs: Any
) -> Samples:
    count = next(len(c) for i, c in enumerate(columns) if i not in batching.whole)
    chunk = batching.samples_at_once(model, example_inputs, dividing(count))
    number = -(-count // chunk)
    repeated = number * chunk - count
    notes: tuple[str, ...] = ()
    if repeated:
        notes = (
            f"data: {repeated} of {count} inputs count twice, as they fill {number} chunks of "
            f"{chunk}",
        )
    order = torch.arange(number * chunk, device=device_of(model)) % count
    parts = [
        [column] * number if i in batching.whole else list(torch.split(column[order], chunk))
        for i, column in enumerate(columns)
    ]
    chunks = tuple(zip(*parts, strict=True))
    return Samples(chunks, True, batching.whole, repeated, notes)


def _batches(data: Any) -> Iterator[Any]:
    """The batches; a tensor or a mapping of tensors is one."""
    if isinstance(data, Tensor | Mapping):
        yield data
        return
    try:
        batches = iter(data)
    except TypeError as error:
        raise UsageError(
            f"data: expected an iterable of batches, such as a DataLoader or a list of tensors, "
            f"found {type(data).__name__}"
        ) from error
    yield from batches


def _arguments(batch: Any, example_inputs: Any) -> list[Tensor]:
    """The network's tensors in a batch, in the order of the example's."""
    args, kwargs = normalise_inputs(example_inputs)
    if isinstance(batch, Tensor):
        batch = (batch,)
    if isinstance(batch, Mapping) and not kwargs:
        raise UsageError(
            f"data: expected tensors, as in example_inputs, found a mapping with {list(batch)}; "
            "give example_inputs as a dict of the same names"
        )
    if kwargs and isinstance(batch, tuple | list) and batch and isinstance(batch[0], Mapping):
        batch = batch[0]  # with its labels
    example = tuple(kwargs.values()) if kwargs and not isinstance(batch, Mapping) else kwargs
    return list(_taken(example or args, batch, "data"))


def _taken(example: Any, given: Any, place: str) -> Iterator[Tensor]:
    """The tensors of ``given`` that stand where the example has some."""
    if isinstance(example, Tensor):
        if not isinstance(given, Tensor):
            raise UsageError(f"{place}: expected a tensor, found {type(given).__name__}")
        require_dense(given, place)
        yield given
    elif isinstance(example, Mapping):
        if not isinstance(given, Mapping):
            raise UsageError(f"{place}: expected a mapping, found {type(given).__name__}")
        for name in (name for name, value in example.items() if tensors_of(value)):
            if name not in given:
                raise UsageError(
                    f"{place}: expected '{name}', as in example_inputs; found {list(given)}"
                )
            yield from _taken(example[name], given[name], f"{place}['{name}']")
    elif isinstance(example, tuple | list):
        wanted = [value for value in example if tensors_of(value)]
        if not isinstance(given, tuple | list):
            cure = "; use torch.from_numpy" if hasattr(given, "__array__") else ""
            raise UsageError(
                f"{place}: expected {len(wanted)} input tensors in a tuple or list, as in "
                f"example_inputs; found {type(given).__name__}{cure}"
            )
        held = [value for value in given if tensors_of(value)]
        if len(held) < len(wanted):
            raise UsageError(
                f"{place}: expected {len(wanted)} input tensors, as in example_inputs; found "
                f"{len(held)}"
            )
        for number, (one, other) in enumerate(zip(wanted, held, strict=False)):
            yield from _taken(one, other, f"{place}[{number}]")
    else:
        raise UsageError(
            f"{place}: expected example_inputs of tensors, tuples, lists and dicts, found "
            f"{type(example).__name__}"
        )


def _checked(parts: list[Tensor], examples: list[Tensor], batching: Batching) -> list[Tensor]:
    """The tensors of a batch, where they can stand for the example's.

    Raises:
        UsageError: no values, another shape, another kind of numbers, or samples of unequal number.
    """
    for i, (part, example) in enumerate(zip(parts, examples, strict=True)):
        if part.is_meta:
            raise UsageError("data: expected inputs with values, found a tensor on the meta device")
        _check_kind(part, example)
        whole = i in batching.whole
        expected = tuple(example.shape if whole else example.shape[1:])
        found = tuple(part.shape if whole else part.shape[1:])
        if found != expected or part.ndim != example.ndim:
            raise UsageError(
                f"data: expected inputs of shape {expected} as in example_inputs, found {found}"
                f"{_cure(part, example)}"
            )
    lengths = {len(part) for i, part in enumerate(parts) if i not in batching.whole}
    if len(lengths) > 1:
        raise UsageError(f"data: expected as many samples of each input, found {sorted(lengths)}")
    return parts


def _check_kind(part: Tensor, example: Tensor) -> None:
    found, expected = kind_of(part.dtype), kind_of(example.dtype)
    if found == expected:
        return
    cure = "give them as the network reads them"
    if expected == "real numbers" and found == "whole numbers":
        cure = "convert them, for pixels with x.float() / 255, and normalise them as in training"
    elif expected == "whole numbers" and found == "real numbers":
        cure = "tokens and the like are x.long()"
    raise UsageError(
        f"data: expected {expected} ({example.dtype}) as in example_inputs, found {found} "
        f"({part.dtype}); {cure}"
    )


def _cure(part: Tensor, example: Tensor) -> str:
    """What a wrong shape looks like, and what to do about it."""
    one, wanted = tuple(part.shape[1:]), tuple(example.shape[1:])
    if tuple(part.shape) == wanted:
        return "; that is a single input: give batches, as a DataLoader makes them, or x[None]"
    if len(wanted) > 1 and one == (*wanted[1:], wanted[0]):
        order = ", ".join(map(str, (0, part.ndim - 1, *range(1, part.ndim - 1))))
        return f"; that looks like channels last: use x.permute({order})"
    if wanted[:1] == (1,) and one == wanted[1:]:
        return "; its channel is missing: use x[:, None]"
    return ""


def _unchanging(values: list[Tensor]) -> Tensor:
    """An input that all samples share.

    Raises:
        UsageError: batches have different ones.
    """
    if any(not torch.equal(value, values[0]) for value in values[1:]):
        raise UsageError(
            f"data: an input of the shape {tuple(values[0].shape)} has no row per sample in "
            "example_inputs, and so must be the same in every batch; found different ones"
        )
    return values[0]


def _refuse_constant(columns: list[Tensor]) -> None:
    """Raises UsageError where all inputs are the same: nothing can be learnt of them."""
    if all(bool((column == column[:1]).all()) for column in columns):
        flat = [bool((c == c.flatten()[:1]).all()) for c in columns if c.is_floating_point()]
        if len(columns[0]) > 1 or (flat and all(flat)):
            raise UsageError(
                f"data: expected inputs that differ, found {len(columns[0])} that are all the same"
                f"{' number' if flat and all(flat) else ''}"
            )


def require_known_tokens(samples: Samples, network: Network) -> None:
    """Raises UsageError where a table of the network has no row for a token."""
    for column, rows in zip(zip(*samples.chunks, strict=True), tables(network), strict=True):
        largest = max((int(part.max()) for part in column if rows and part.numel()), default=0)
        if rows is not None and largest >= rows:
            raise UsageError(
                f"data: expected tokens under {rows}, the rows of the table they are looked up in, "
                f"found {largest}"
            )

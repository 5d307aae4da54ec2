"""What training frameworks put around weights: dictionaries around them, prefixes before names.

A name fits if the network has it. Only what fits exactly is taken, so nothing here has to know
which framework wrote a file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bequest.errors import ArtifactError

_HOLDERS = (
    *("state_dict", "model", "model_state_dict", "state", "module", "net", "network", "weights"),
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "averaged_model"),
)
"""Keys under which checkpoints hold weights; averages, which come last, beside other weights."""

_AVERAGES = frozenset({"ema", "ema_model", "ema_module", "model_ema", "averaged_model"})
"""First parts of names under which averages of the weights stand beside the weights."""

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that compiling and sharding a module bring in, wherever it stands."""

_COUNTERS = frozenset({"n_averaged", "num_updates", "initted", "step", "decay"})
"""Last parts of names of the single numbers that averaging keeps beside the weights."""

_LISTED = 3


def unwrapped(checkpoint: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint: itself, or what it holds under one of the usual keys.

    Raises:
        ArtifactError: there is none.
    """
    passed = set()
    while key := _holder(checkpoint):
        passed.add(id(checkpoint))
        checkpoint = checkpoint[key]
        if id(checkpoint) in passed:
            raise ArtifactError(f"{path}: expected a state dict, found '{key}' that holds itself")
    if not isinstance(checkpoint, Mapping):
        raise ArtifactError(
            f"{path}: expected a state dict (names and tensors), found {type(checkpoint).__name__}"
        )
    others = [str(name) for name, value in checkpoint.items() if not isinstance(value, Tensor)]
    if others or not checkpoint:
        found = f"other things: {listed(others)}" if others else "an empty dictionary"
        raise ArtifactError(f"{path}: expected a state dict (names and tensors), found {found}")
    return {str(name): value for name, value in checkpoint.items()}


def _holder(checkpoint: Any) -> str | None:
    if not isinstance(checkpoint, Mapping):
        return None
    return next((key for key in _HOLDERS if isinstance(checkpoint.get(key), Mapping)), None)


@dataclass(frozen=True)
class _Attempt:
    """Names of a file under which its tensors might fit.

    Attributes:
        names: new name → the file's.
        prefix: what was taken off.
        without: names of the file that don't begin so.
    """

    names: Mapping[str, str]
    prefix: str = ""
    without: tuple[str, ...] = ()


def fitted(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A file's tensors by the network's names.

    One prefix that all names have, of any number of parts, is taken off if what is left fits
    exactly. Parts that compiling brings in, single numbers that averaging keeps, and averages that
    stand beside the weights don't count.

    Args:
        own: the network's tensors.
        given: the file's.
        path: of the file, for messages.

    Raises:
        ArtifactError: nothing fits; the message says what comes closest.
    """
    best, most = _Attempt({name: name for name in given}), 0
    for attempt in _attempts(own, given):
        missing, unexpected = _lacks(own, attempt.names)
        if not missing and not unexpected and not attempt.without:
            return {name: given[old] for name, old in attempt.names.items()}
        if (fit := len(attempt.names) - len(unexpected)) > most:
            best, most = attempt, fit
    raise ArtifactError(_closest(own, best, path))


def _attempts(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[_Attempt]:
    """As it is, without wrappers, and without each prefix that some names share."""
    yield _Attempt({name: name for name in given})
    names: dict[str, str] = {}
    counters = _COUNTERS - {name.rpartition(".")[2] for name in own}
    for old, value in given.items():
        parts = [part for part in old.split(".") if part not in _WRAPPERS]
        if value.numel() != 1 or parts[-1] not in counters:
            new = ".".join(parts)
            names[old if new in names else new] = old
    yield _Attempt(names)
    shared: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parts = name.split(".")
        for count in range(1, len(parts)):
            shared[".".join(parts[:count]) + "."].append(name)
    for prefix, having in shared.items():
        first = {name.partition(".")[0] for name in having}
        others = [name for name in names if not name.startswith(prefix)]
        if first.isdisjoint(_AVERAGES):
            others = [name for name in others if name.partition(".")[0] not in _AVERAGES]
        stripped = {name.removeprefix(prefix): names[name] for name in having}
        yield _Attempt(stripped, prefix, tuple(others))


def _lacks(own: Mapping[str, Tensor], names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names of the network that have no tensor, and names that the network has not."""
    given = set(names)
    covered = {id(own[name]) for name in given & own.keys()}
    missing = [
        name
        for name, tensor in own.items()
        if id(tensor) not in covered and not name.endswith("num_batches_tracked")
    ]
    return missing, [name for name in names if name not in own]


def _closest(own: Mapping[str, Tensor], best: _Attempt, path: Path) -> str:
    missing, unexpected = _lacks(own, best.names)
    found = [("missing", missing), ("unexpected", unexpected)]
    parts = [f"{what}: {listed(names)}" for what, names in found if names]
    if best.prefix:
        total = len(best.names) + len(best.without)
        parts.insert(
            0,
            f"{len(best.names)} of its {total} names begin with '{best.prefix}', of which without "
            f"it {len(best.names) - len(unexpected)} are among the network's {len(own)}",
        )
    if best.without:
        parts.append(f"without that prefix: {listed(best.without)}")
    return (
        f"{path} does not fit the network by name; {'; '.join(parts)}. "
        "Expected the weights of exactly this network, with one prefix or none; save those alone "
        "with safetensors.torch.save_file."
    )


def listed(items: Iterable[str]) -> str:
    """The first few of them, and how many more there are."""
    items = list(items)
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more

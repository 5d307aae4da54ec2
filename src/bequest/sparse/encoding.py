"""Tensors with many zeros, stored as one bit per place and the values between the zeros.

A tensor ``T`` becomes ``T.places``, a bit for each of its values, and ``T.values``, those whose bit
is set. A value is left out where all its bits are 0, so that what is read back is the same to the
bit (-0.0 and NaN included). No tensor of a module can have these names: ``T`` would have to be a
tensor and a module at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bequest.errors import ArtifactError
from bequest.sparse.bits import pack, packed_size, unpack

_PLACES, _VALUES = ".places", ".values"
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class TensorSpec:
    """Dtype (``float32``) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        """What ``tensor`` is."""
        return cls(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def encode(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors to write: each as it is, or in two parts where that is smaller."""
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _is_smaller_in_parts(tensor):
            flat = tensor.detach().reshape(-1)
            places = _as_bits(flat) != 0
            written[name + _PLACES], written[name + _VALUES] = pack(places), flat[places]
        else:
            written[name] = tensor
    return written


def decode(written: Mapping[str, Tensor], specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    """The tensors that :func:`encode` was given.

    Args:
        written: what the file holds; names that belong to no tensor in parts stay as they are.
        specs: dtype and shape of each tensor.

    Raises:
        ArtifactError: two parts don't go together or not with their spec.
    """
    tensors = dict(written)
    for name, spec in specs.items():
        if name not in tensors and name + _PLACES in tensors and name + _VALUES in tensors:
            parts = tensors.pop(name + _PLACES), tensors.pop(name + _VALUES)
            tensors[name] = _joined(name, *parts, spec)
    return tensors


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors in the form in which they are written."""
    return sum(
        _bytes_in_parts(tensor) if _is_smaller_in_parts(tensor) else tensor.nbytes
        for tensor in tensors
    )


def _is_smaller_in_parts(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.is_meta or tensor.layout != torch.strided:
        return False
    return _bytes_in_parts(tensor) < tensor.nbytes


def _bytes_in_parts(tensor: Tensor) -> int:
    count = int(_as_bits(tensor.detach().reshape(-1)).count_nonzero())
    return packed_size(tensor.numel()) + count * tensor.element_size()


def _as_bits(flat: Tensor) -> Tensor:
    """Whole numbers that are 0 where a value has no bit that is set: −0 has one."""
    return flat.contiguous().view(_BITS[flat.element_size()])


def _joined(name: str, places: Tensor, values: Tensor, spec: TensorSpec) -> Tensor:
    count = math.prod(spec.shape)
    if places.dtype != torch.uint8 or tuple(places.shape) != (packed_size(count),):
        raise ArtifactError(
            f"'{name}{_PLACES}': expected uint8 ({packed_size(count)},), found "
            f"{TensorSpec.of(places)}"
        )
    held = unpack(places, (len(places) * 8,))
    expected = TensorSpec(spec.dtype, (int(held[:count].sum()),))
    if TensorSpec.of(values) != expected or held[count:].any():
        raise ArtifactError(
            f"'{name}{_VALUES}': expected {expected} as its places say, found "
            f"{TensorSpec.of(values)}"
        )
    flat = values.new_zeros(count)
    flat[held[:count]] = values
    return flat.reshape(spec.shape)

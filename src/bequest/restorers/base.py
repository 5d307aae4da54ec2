"""What every restorer is: how the removed channels of a unit are handed on to the kept ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, linalg

from bequest.errors import ModelError
from bequest.graph.units import Unit
from bequest.restorers.exact import constants


@dataclass(frozen=True)
class Delivery:
    """What r removed channels leave to p kept ones; every tensor is float64.

    A consumer's weight W (o, n, q) becomes
    ``W'[:, k] = gain_k·W[:, k] + Σ_j matrix[j, k]·W[:, j]`` and its bias grows by
    ``Σ_j offset_j·Σ_q W[:, j, q]``, j over the removed and k over the kept channels.

    Attributes:
        matrix: (r, p); row j writes removed channel j in terms of the kept ones.
        offset: (r,), the constant that each removed channel leaves to the consumers' biases;
            None = nothing.
        gain: (p,), the factor on each kept channel's own weights; None = 1.
        notes: what the caller should report: fallbacks, guarded values, places of inexactness.
    """

    matrix: Tensor
    offset: Tensor | None = None
    gain: Tensor | None = None
    notes: tuple[str, ...] = ()


class Restorer(ABC):
    """Writes removed channels in terms of kept ones; a frozen dataclass of its parameters."""

    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class that says nothing else goes by its own name."""
        super().__init_subclass__(**kwargs)
        cls.name = cls.__dict__.get("name", cls.__name__)

    def deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        """Hands the removed channels on.

        Args:
            unit: a group of n channels without ``obstacle``.
            kept: int64 (p,), ascending, p ≥ 1.
            removed: int64 (r,), ascending; every channel is either kept or removed.
            seed: of every draw that the restorer makes; the global generators are left alone.

        Returns:
            The delivery, finite, on the unit's device.

        Raises:
            ModelError: the outcome is not finite, as from weights that are not.
        """
        _check_partition(unit, kept, removed)
        if len(removed) == 0:
            return Delivery(unit.producer.weight.new_zeros(0, len(kept)))
        delivery = self._deliver(unit, kept, removed, seed)
        self._check(unit, delivery, len(kept), len(removed))
        return delivery

    @abstractmethod
    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        """The delivery of at least one removed channel, not yet checked."""

    def _check(self, unit: Unit, delivery: Delivery, p: int, r: int) -> None:
        expected = {"matrix": (r, p), "offset": (r,), "gain": (p,)}
        for field, shape in expected.items():
            tensor = getattr(delivery, field)
            if tensor is None:
                continue
            if tensor.shape != shape:
                raise ValueError(
                    f"restorer '{self.name}': expected {field} of shape {shape} for {unit.name}, "
                    f"found {tuple(tensor.shape)}"
                )
            if not tensor.isfinite().all():
                raise ModelError(
                    f"restorer '{self.name}': expected a finite {field} for {unit.name}, found "
                    "NaN or infinity; look for such values in its weights"
                )


def _check_partition(unit: Unit, kept: Tensor, removed: Tensor) -> None:
    everyone = torch.arange(unit.size, device=kept.device)
    ascending = all(bool((index.diff() > 0).all()) for index in (kept, removed))
    whole = torch.equal(torch.cat([kept, removed]).sort().values, everyone)
    if len(kept) == 0 or not ascending or not whole:
        raise ValueError(
            f"{unit.name}: expected kept and removed to be ascending and to share out channels "
            f"0 to {unit.size - 1}, with at least one kept; found {kept.tolist()} and "
            f"{removed.tolist()}"
        )


def reconstruction_error(unit: Unit, kept: Tensor, removed: Tensor, delivery: Delivery) -> Tensor:
    """How far each removed channel is from what was handed on for it.

    ‖r̃_j − Σ_k S_jk·r̃_k − [0; c_j]‖ / ‖r̃_j‖ on the rows r̃ = [W̃; b̃]: the filter and bias with
    the batch norm folded. A constant channel has the row [0; v], v its value behind the
    activation, for which alone it counts. Offsets count where they are in the same units: for
    constant channels and without activation. Rows under a millionth of the largest are measured
    against that millionth, so that a channel worth nothing counts 0 when nothing is handed on.

    Returns:
        float64 (r,): 0 where exact, 1 where nothing was handed on.
    """
    filters, biases = unit.producer.folded()
    constant, value = constants(unit)
    rows = torch.cat([filters, biases[:, None]], dim=1)
    rows[constant] = 0
    rows[constant, -1] = value[constant]
    left = rows[removed] - delivery.matrix @ rows[kept]
    if delivery.offset is not None:
        unbent = unit.activation is not None and unit.activation.is_identity
        comparable = constant[removed] | unbent
        left[:, -1] -= torch.where(comparable, delivery.offset, 0.0)
    norms = linalg.vector_norm(rows, dim=1)
    scale = norms[removed].clamp(min=1e-6 * float(norms.max()))
    return torch.where(scale > 0, linalg.vector_norm(left, dim=1) / scale, 0.0)

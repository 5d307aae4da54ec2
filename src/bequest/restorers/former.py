"""What tensors of the pruned network were before restorers changed them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bequest.surgery.masked import cuts_of
from bequest.surgery.operation import Surgery, select


class Former:
    """Tensors that were changed, as the surgery had left them.

    They are cut from the dense network anew whenever they are asked for, so that none is held.

    Args:
        dense: the dense network's tensors by name.
        surgery: what made the pruned network.

    Attributes:
        changed: names of the tensors.
    """

    def __init__(self, dense: Mapping[str, Tensor], surgery: Surgery) -> None:
        self._dense, self._cuts = dense, cuts_of(surgery)
        self.changed: set[str] = set()

    def note(self, name: str) -> None:
        """States that a tensor is about to be changed."""
        self.changed.add(name)

    def get(self, name: str, now: Tensor) -> Tensor:
        """The tensor as it was, zeros for a new bias; ``now`` where nobody changed it."""
        if name not in self.changed:
            return now
        if name not in self._dense:
            return torch.zeros_like(now)
        return select(self._dense[name].detach(), self._cuts[name]).to(now.dtype)

"""Where a model is."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from bequest.errors import UsageError


def device_of(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def usable(device: torch.device | str, name: str = "device") -> torch.device:
    """A device that PyTorch can use here.

    Args:
        device: such as "cpu" or "cuda:0".
        name: of the argument or option, for the message.

    Raises:
        UsageError: there is no such device on this machine.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except Exception as error:  # each backend has its own
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"{name}: expected a device that PyTorch can use here, such as cpu, found "
            f"{str(device)!r}: {reason}"
        ) from error
    return found

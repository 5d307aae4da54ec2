"""What is a model, and what it says to inputs that it does not take."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bequest.errors import UsageError


def require_module(model: object) -> None:
    """Refuses what is no network.

    Raises:
        UsageError: ``model`` is no module; of a class the message says how to make one.
    """
    if not isinstance(model, nn.Module):
        hint = f"; write {model.__name__}(...)" if isinstance(model, type) else ""
        found = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise UsageError(f"model: expected a torch.nn.Module, found {found}{hint}")


def misfit(model: nn.Module, inputs: Any, error: Exception, which: str = "inputs") -> UsageError:
    """What to tell the user of inputs on which a network fails.

    Args:
        model: the network.
        inputs: its arguments, in any structure.
        error: what its code raised.
        which: what the inputs are called.
    """
    shapes = [tuple(one.shape) for one in pytree.tree_leaves(inputs) if isinstance(one, Tensor)]
    of = f" of shape {', '.join(map(str, shapes))}" if shapes else f" {type(inputs).__name__}"
    return UsageError(
        f"{type(model).__name__} does not run on the {which}{of}: "
        f"{first_lines(error).rstrip('.')}. "
        "Give inputs of the shape, dtype and device that the model takes."
    )


def first_lines(error: Exception) -> str:
    """The beginning of what an error says, in one line; its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:400] or type(error).__name__

"""Caches of keys and values: a network that is looked at keeps none.

What a language model returns beside its logits for the next call is a state, no result. As results
its tensors would hold the heads' widths, in a type that no tracer takes apart.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

_STATES = frozenset({"past_key_values", "cache_params", "mems", "state"})
"""Names that transformers' results give to what the next call starts from."""


def is_pretrained(model: object) -> bool:
    """Whether a model is of one of transformers' classes, or of one that is derived from them."""
    library = sys.modules.get("transformers.modeling_utils")
    return library is not None and isinstance(model, library.PreTrainedModel)


def keep_no_cache(model: nn.Module) -> None:
    """Switches caches off, in place, and takes those that are returned all the same away.

    Args:
        model: a copy with configurations of its own.
    """
    for module in model.modules():
        for held in vars(module).values():
            if isinstance(getattr(held, "use_cache", None), bool):
                held.use_cache = False
    if is_pretrained(model) and without_states not in model._forward_hooks.values():
        model.register_forward_hook(without_states)


def without_states(model: nn.Module, inputs: Any, results: Any) -> Any:
    """A forward hook: the results but for what the next call starts from."""
    if isinstance(results, Mapping):
        states = [name for name in results if name in _STATES]
        kept = {name: value for name, value in results.items() if name not in states}
        return type(results)(**kept) if states else results
    if isinstance(results, tuple):
        return tuple(one for one in results if not _is_cache(one))
    return results


def _is_cache(value: object) -> bool:
    library = sys.modules.get("transformers.cache_utils")
    return library is not None and isinstance(value, library.Cache)

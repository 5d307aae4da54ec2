"""Widths that modules keep for their own code: attributes that follow the channels that leave.

``view(B, N, 3, self.num_heads, self.head_dim)`` holds a width that no tensor shows. A module whose
views, slices or expansions change is searched for attributes of known names that hold a size which
changes there. That is a guess; a second trace of the pruned network compares it with the plan.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import nn

from bequest.graph.ledger import Layout
from bequest.graph.trace import module_of, operator_of
from bequest.surgery.cut import Cut
from bequest.surgery.operation import Attribute

COUNTS = frozenset(
    "num_heads num_attention_heads n_heads n_head nhead heads num_kv_heads num_key_value_heads "
    "n_kv_heads".split()
)
"""Names under which modules of public libraries hold numbers of heads."""

HEAD_WIDTHS = frozenset("head_dim head_size attention_head_size key_value_proj_dim d_kv".split())
"""The same of the width of a head."""

HELD = (
    COUNTS
    | HEAD_WIDTHS
    | frozenset(
        "attn_dim all_head_size key_attn_dim val_attn_dim key_dim val_dim value_dim inner_dim "
        "embed_dim hidden_dim out_dim hidden_size hidden_channels intermediate_size d_inner "
        "split_size split_sizes channel_splits split_indices".split()
    )
)
"""The same of numbers of heads or of channels."""

Size = int | tuple[int, ...]


@dataclass(frozen=True)
class _Met:
    """What becomes of a size that was met in a module, and whether it was that of a last dimension.

    A view that lays channels out over heads has their number before their width.
    """

    after: Size
    last: bool


def mend(cut: Cut, model: nn.Module) -> Iterator[Attribute]:
    """The attributes that hold a width which changes in the module that has them.

    Args:
        cut: who leaves.
        model: the dense model; only attributes are read.
    """
    modules = dict(model.named_modules())
    for name, sizes in _changes(cut).items():
        for attribute in _held(modules[name]) if name in modules else ():
            before = attrgetter(attribute)(modules[name])
            before = tuple(before) if isinstance(before, list | tuple) else before
            if type(before) in (int, tuple):
                after = _after(attribute.rpartition(".")[2], before, sizes.get(before, set()))
                if after != before:
                    yield Attribute(name, attribute, before, after)


def _held(module: nn.Module) -> list[str]:
    """Known names of a module's own numbers, and of those that its code reads from its config."""
    found = sorted(HELD.intersection(vars(module)))
    config = vars(module).get("config")
    read = sorted(name for name in COUNTS if type(getattr(config, name, None)) is int)
    if not read:
        return found
    try:
        source = inspect.getsource(type(module).forward)
    except (OSError, TypeError):  # code that was typed in, or compiled
        return found
    return found + [f"config.{name}" for name in read if f"self.config.{name}" in source]


def _after(attribute: str, before: Size, met: set[_Met]) -> Size:
    """What an attribute holds afterwards; as before where sizes in its module don't say it.

    Where heads are as many as they are wide, one of two equal sizes changes: which of them the
    attribute holds is told by its name.
    """
    changed = {one for one in met if one.after != before}
    if len(changed) < len(met):
        if attribute in COUNTS:
            changed = {one for one in changed if not one.last}
        elif attribute in HEAD_WIDTHS:
            changed = {one for one in changed if one.last}
    found = {one.after for one in changed}
    return found.pop() if len(found) == 1 else before


def _changes(cut: Cut) -> dict[str, dict[Size, set[_Met]]]:
    """Module → size in its operators' results → what becomes of it, where numbers in them change.

    The sizes of a split are one: a tuple.
    """
    found: dict[str, dict[Size, set[_Met]]] = defaultdict(lambda: defaultdict(set))
    for node in cut.channels.reading.network.nodes:
        rewritten = cut.literals(node)
        if not rewritten:
            continue
        sizes = found[module_of(node)]
        if operator_of(node) == "split_with_sizes":
            given: Any = node.args[1]
            sizes[tuple(given)].add(_Met(tuple(rewritten[1]), last=False))
        for value in (node, *node.all_input_nodes[:1]):
            if isinstance(cut.channels.reading.layouts[value], Layout):
                shape, left = value.meta["val"].shape, cut.shape(value)
                for dim, (before, after) in enumerate(zip(shape, left, strict=True)):
                    sizes[int(before)].add(_Met(after, last=dim == len(left) - 1))
    return found

"""Widths that modules keep for their own code: attributes that follow the channels that leave.

``view(B, N, 3, self.num_heads, self.head_dim)`` holds a width that no tensor shows. A module whose
views, slices or expansions change is searched for attributes of known names that hold a size which
changes there. That is a guess; a second trace of the pruned network compares it with the plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from torch import fx, nn

from bequest.graph.ledger import Layout
from bequest.graph.trace import module_of, operator_of
from bequest.surgery.cut import Cut
from bequest.surgery.operation import Attribute

HELD = frozenset(
    "num_heads num_attention_heads n_heads n_head nhead heads num_kv_heads num_key_value_heads "
    "n_kv_heads head_dim attention_head_size attn_dim all_head_size key_attn_dim val_attn_dim "
    "key_dim val_dim value_dim inner_dim embed_dim hidden_dim out_dim split_size split_sizes "
    "channel_splits split_indices nf nx".split()
)
"""Names under which modules of public libraries hold numbers of heads or of channels."""

Size = int | tuple[int, ...]


def mend(cut: Cut, model: nn.Module) -> Iterator[Attribute]:
    """The attributes that hold a width which changes in the module that has them.

    Args:
        cut: who leaves.
        model: the dense model; only attributes are read.
    """
    modules = dict(model.named_modules())
    for name, sizes in _changes(cut).items():
        module = modules.get(name)
        for attribute in sorted(HELD.intersection(vars(module) if module is not None else ())):
            before = getattr(module, attribute)
            before = tuple(before) if isinstance(before, list | tuple) else before
            if type(before) in (int, tuple) and len(sizes.get(before, ())) == 1:
                yield Attribute(name, attribute, before, *sizes[before])


def _changes(cut: Cut) -> dict[str, dict[Size, set[Size]]]:
    """Module → size in its operators' results → what becomes of it where it changes.

    The sizes of a split are one: a tuple.
    """
    found: dict[str, dict[Size, set[Size]]] = defaultdict(lambda: defaultdict(set))
    for node in cut.channels.reading.network.nodes:
        rewritten = cut.literals(node)
        if not rewritten:
            continue
        sizes = found[module_of(node)]
        if operator_of(node) == "split_with_sizes":
            given: Any = node.args[1]
            sizes[tuple(given)].add(tuple(rewritten[1]))
        for value in (node, node.args[0]):
            assert isinstance(value, fx.Node)
            if isinstance(cut.channels.reading.layouts[value], Layout):
                shape = value.meta["val"].shape
                for before, after in zip(shape, cut.shape(value), strict=True):
                    if before != after:
                        sizes[int(before)].add(after)
    return found

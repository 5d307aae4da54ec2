"""Surgeries one after the other as a single one, and those of parts as one of the whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bequest.surgery.operation import Attribute, Surgery, TensorCut


def composed(first: Surgery, second: Surgery, made: Collection[str]) -> Surgery:
    """The surgery that does to a network what ``first`` does, and ``second`` to what that leaves.

    Biases are made after all cuts, at the width that is left then. So what ``second`` cuts of a
    bias that ``first`` made is left out.

    Args:
        first: of the network.
        second: of what ``first`` leaves.
        made: every name of the biases that ``first`` made.
    """
    later = [cut for cut in second.cuts if cut.tensor not in made]
    return Surgery(
        cuts=tuple(_joined_cuts([*first.cuts, *later])),
        attributes=tuple(_joined_attributes([*first.attributes, *second.attributes])),
        biases=(*first.biases, *second.biases),
    )


def below(surgery: Surgery, part: str) -> Surgery:
    """The surgery of a part of a network, with the names that the whole network has for it."""
    return Surgery(
        cuts=tuple(
            TensorCut(qualified(part, cut.tensor), cut.dim, cut.keep, cut.blocks)
            for cut in surgery.cuts
        ),
        attributes=tuple(
            Attribute(qualified(part, one.module), one.name, one.before, one.after)
            for one in surgery.attributes
        ),
        biases=tuple(qualified(part, name) for name in surgery.biases),
    )


def qualified(part: str, name: str) -> str:
    """The name in the whole network of what a part of it calls ``name``; either may be empty."""
    return ".".join(filter(None, (part, name)))


def _joined_cuts(cuts: Iterable[TensorCut]) -> Iterable[TensorCut]:
    """Two cuts along one dimension as one.

    Cuts along several dimensions can be made in any order, but for those that count rows in blocks:
    a tensor with such a cut keeps all of its cuts, in their order.
    """
    cuts = list(cuts)
    in_blocks = {cut.tensor for cut in cuts if cut.blocks > 1}
    joined: dict[object, TensorCut] = {}
    for number, cut in enumerate(cuts):
        place = number if cut.tensor in in_blocks else (cut.tensor, cut.dim)
        before = joined.get(place)
        keep = cut.keep if before is None else tuple(before.keep[index] for index in cut.keep)
        joined[place] = TensorCut(cut.tensor, cut.dim, keep, cut.blocks)
    return joined.values()


def _joined_attributes(changes: Iterable[Attribute]) -> Iterable[Attribute]:
    joined: dict[tuple[str, str], Attribute] = {}
    for change in changes:
        place = (change.module, change.name)
        before = joined[place].before if place in joined else change.before
        joined[place] = Attribute(change.module, change.name, before, change.after)
    return joined.values()

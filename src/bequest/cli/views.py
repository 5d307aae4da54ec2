"""An inspection as tables: groups that are alike share a row."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text

from bequest.cli.tables import Footnotes, table
from bequest.report import wording
from bequest.selection.inspection import GroupView, Inspection


def inspection_tables(inspection: Inspection) -> list[RenderableType]:
    """Groups with their widths and readers, remarks, operators without a rule, and a summary."""
    remarks = Footnotes()
    rows = [_row(alike, remarks) for alike in _alike(inspection.groups)]
    columns = ("layers", "read by", "kind", "note", "channels")
    items: list[RenderableType] = [remarks.under(table(columns, rows, left=4))]
    if inspection.walls:
        walls = "\n".join(f"  {wall}" for wall in wording.merged(inspection.walls))
        items.append(Text(f"Operators without a rule; what meets them is not pruned:\n{walls}"))
    return [*items, Text(_summary(inspection.groups))]


def _alike(groups: Sequence[GroupView]) -> list[list[GroupView]]:
    """Groups that differ in nothing but numbers in names, in the order of the first of each."""
    held: dict[tuple[object, ...], list[GroupView]] = {}
    for group in groups:
        key = (
            wording.nameless(group.name),
            group.kind,
            group.size,
            group.rows,
            group.prunable,
            tuple(wording.nameless(name) for name in group.producers),
            tuple(wording.nameless(name) for name in group.consumers),
            wording.nameless(group.obstacle or ""),
            tuple(wording.nameless(reason) for reason in group.reasons),
            tuple(wording.nameless(name) for name in group.literal),
        )
        held.setdefault(key, []).append(group)
    return list(held.values())


def _row(alike: Sequence[GroupView], remarks: Footnotes) -> tuple[str, ...]:
    one = alike[0]
    width = f"{one.size}" if one.prunable in (0, one.size) else f"{one.prunable} of {one.size}"
    marks = [remarks.mark(_remarks(group)) for group in alike]
    return (
        escape(wording.compact(name for group in alike for name in group.producers)),
        escape(wording.compact(name for group in alike for name in group.consumers)),
        one.kind,
        marks[0],  # alike groups have alike remarks
        f"{len(alike)} x {width}" if len(alike) > 1 else width,
    )


def _remarks(group: GroupView) -> list[str]:
    if group.kind == "output":
        return [f"{group.reasons[0]}; pruned only where a ratio names the layer in full"]
    remarks = []
    if group.rows > 1:
        remarks.append(f"a channel is {group.rows} rows of its layer, such as a whole head")
    if group.prunable == 0:
        remarks.append(f"can't be pruned: {'; '.join(group.reasons)}")
    elif group.prunable < group.size:
        remarks.append(f"some channels can't leave: {'; '.join(group.reasons)}")
    if group.obstacle is not None and group.prunable:
        remarks.append(f"no restorer in weight space serves it: {group.obstacle}")
    if group.literal:
        operators = wording.compact(group.literal)
        remarks.append(f"its width may be a constant in the code, pruning tries it: {operators}")
    return remarks


def _summary(groups: Sequence[GroupView]) -> str:
    channels = sum(group.prunable for group in groups)
    restorable = sum(group.prunable for group in groups if group.obstacle is None)
    total = sum(group.size for group in groups)
    return (
        f"{len(groups)} groups, {total:,} channels: {channels:,} can be pruned, of which "
        f"{restorable:,} can be handed on by restorers in weight space."
    )

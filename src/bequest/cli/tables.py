"""The tables of the terminal; nothing in them is cut off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bequest.artifact.plan import GroupPlan, Refusal
from bequest.report import wording


class Footnotes:
    """Long remarks below a table; those that differ in numbers alone share one."""

    def __init__(self) -> None:
        self._held: dict[str, list[str]] = {}

    def mark(self, remarks: Iterable[str]) -> str:
        """What stands in the row for these remarks: "1 3"."""
        numbers = []
        for text in remarks:
            self._held.setdefault(wording.nameless(text), []).append(text)
            numbers.append(list(self._held).index(wording.nameless(text)) + 1)
        return " ".join(map(str, numbers))

    def under(self, above: Table) -> Group:
        """The table with the remarks and their numbers below it."""
        lines = Table.grid(padding=(0, 2))
        for number, texts in enumerate(self._held.values(), start=1):
            lines.add_row(f" {number}", escape("; ".join(wording.merged(texts))))
        return Group(above, lines) if self._held else Group(above)


def titled(title: str, content: RenderableType) -> Group:
    """A bold line above; a table's own title would be broken to the table's width."""
    return Group(Text(title, style="bold"), content)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """A table whose first ``left`` columns are words and whose others are numbers.

    Columns with nothing in them are left out. Cells may use the markup of rich; names are escaped
    by the caller.
    """
    made = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        show_header=any(columns),
    )
    shown = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    for place in shown:
        if place < left:
            made.add_column(columns[place], overflow="fold")
        else:
            made.add_column(columns[place], justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*(row[place] for place in shown))
    return made


def group_table(groups: Sequence[GroupPlan]) -> Group:
    """Per pruned group what stays of it, who restored it, how exactly, and remarks below."""
    remarks = Footnotes()
    rows = [
        (
            escape(group.name),
            escape(group.restored_by),
            remarks.mark(group.notes),
            f"{group.kept}/{group.size}",
            wording.error(group.reconstruction_error),
        )
        for group in groups
    ]
    columns = ("layer", "restored by", "note", "stay", "error")
    return titled("Pruned layers", remarks.under(table(columns, rows, left=3)))


def refusal_tables(refusals: Sequence[Refusal]) -> list[RenderableType]:
    """What stayed as it is, one row per reason; no table where there is nothing to say."""
    rows = [
        (escape(wording.compact(r.group for r in refusals if r.reason == reason)), escape(reason))
        for reason in dict.fromkeys(refusal.reason for refusal in refusals)
    ]
    return [titled("Not pruned", table(("layers", "why"), rows, left=2))] if rows else []

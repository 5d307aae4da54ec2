"""One self-contained HTML page: text, pictures and tables; nothing is loaded from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from bequest._version import __version__
from bequest.report.figures import SERIES


@dataclass(frozen=True)
class Picture:
    """An ``<svg>`` element of :mod:`bequest.report.figures`, and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Cells as text; columns from ``numeric_from`` on are aligned to the right.

    Columns with nothing in them are left out. ``cells`` has for each row the number of the cell
    that it opens, and of the method by which it can be left out.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric_from: int = 1
    cells: Sequence[tuple[int, int]] = ()

    @property
    def shown(self) -> list[int]:
        """The places of the columns that hold something."""
        return [place for place in range(len(self.columns)) if any(row[place] for row in self.rows)]


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it: text first, then pictures and tables in order."""

    heading: str
    text: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Page:
    """Everything on a page. All text is escaped; only pictures are markup.

    ``methods`` are the names by which pictures and rows can be left out, in the order of their
    numbers; ``cells`` has for each number that a row or a point opens a title and rows of layers.
    """

    title: str
    summary: Sequence[str]
    sections: Sequence[Section]
    methods: Sequence[str] = ()
    cells: Mapping[str, Any] = field(default_factory=dict)


def render(page: Page) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bequest.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("page.html.jinja")
    return template.render(page=page, version=__version__, series=SERIES)

"""The numbers that methods and cells have on a page, and the lines that they make."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import product

from bequest.report.tradeoff import Cost, Line, Point
from bequest.sweeping import Cell, Comparison, Sweep
from bequest.sweeping.comparison import Key


@dataclass(frozen=True)
class Numbered:
    """The numbers that methods and cells have on a page.

    Attributes:
        methods: "criterion, restorer" → its number, the same for all networks.
        cells: the network's name and a cell's own → its number.
    """

    methods: dict[str, int]
    cells: dict[Key, int]

    @classmethod
    def of(cls, sweep: Sweep) -> Numbered:
        """In the order of the sweep."""
        names = dict.fromkeys(method_of(cell) for one in sweep.comparisons for cell in one.cells)
        keys = [key_of(one, cell) for one in sweep.comparisons for cell in one.cells]
        return cls(
            {name: number for number, name in enumerate(names)},
            {key: number for number, key in enumerate(keys)},
        )

    def cell(self, comparison: Comparison, cell: Cell) -> int:
        """The number of a cell."""
        return self.cells[key_of(comparison, cell)]


def key_of(comparison: Comparison, cell: Cell) -> Key:
    """Which cell of the sweep it is."""
    return Key(comparison.model, cell.criterion, cell.restorer, cell.seed, cell.ratio)


def method_of(cell: Cell) -> str:
    """Criterion and restorer, in words."""
    return f"{cell.criterion}, {cell.restorer}"


def lines_of(comparison: Comparison, numbered: Numbered, cost: Cost) -> list[Line]:
    """A line per method over the ratios, of those cells whose cost was measured."""
    lines = []
    for criterion, restorer in product(comparison.criteria, comparison.restorers):
        points = []
        for ratio in comparison.ratios:
            cells = comparison.over_seeds(criterion, restorer, ratio)
            shares = [share for cell in cells if (share := cost(cell)) is not None]
            if shares:
                figures = [comparison.figure(cell.accuracy) for cell in cells]
                points.append(
                    Point(
                        numbered.cell(comparison, cells[0]),
                        100 * statistics.median(shares),
                        statistics.median(figures),
                        min(figures),
                        max(figures),
                    )
                )
        if points:
            name = f"{criterion}, {restorer}"
            lines.append(Line(numbered.methods[name], name, points))
    return lines

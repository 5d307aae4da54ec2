"""Pages: self-contained, escaped, with the numbers that were measured."""

from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from bequest.artifact.plan import GroupPlan, Refusal
from bequest.measure import Accuracy, Cost, Latency
from bequest.pruning import Report
from bequest.report import (
    Measured,
    PruningResult,
    pruning_page,
    sweep_page,
)
from bequest.report.comparison import cost_rows
from bequest.report.page import Page, Section, Table, render
from bequest.report.pruning import AS_PROGRAM, before_and_after
from bequest.sweeping import Cell, Comparison, Sweep


def comparison_page(comparison, *notes):
    return sweep_page(Sweep((comparison,)), *notes)


class Reader(HTMLParser):
    """Collects tags, attributes that load something, and the cells of tables."""

    def __init__(self):
        super().__init__()
        self.tags, self.loaded, self.cells = [], [], []
        self.in_cell = False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [
            v for k, v in attrs if k in ("src", "href", "data") and not v.startswith("#")
        ]
        if tag in ("td", "th"):
            self.in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.in_cell:
            self.cells[-1] += data.strip()


def read(html):
    reader = Reader()
    reader.feed(html)
    return reader


def accuracy(top1):
    return Accuracy(top1=top1, top5=99.0, loss=0.5, count=1000, nonfinite=0)


def group(name, size, removed, notes=()):
    return GroupPlan(name, "inner", (name,), (), size, tuple(range(removed)), "lbyl", 0.25, notes)


DENSE = Cost(params=1000, macs=50_000, bytes=4000)
REFUSED = (Refusal("stem", 16, "it is a residual stream"),)


@pytest.fixture
def comparison():
    cells = tuple(
        Cell(
            criterion="l2",
            restorer=restorer,
            ratio=ratio,
            accuracy=accuracy(top1),
            cost=Cost(params, macs, 4 * params),
            groups=(group("a", 10, removed), group("b", 30, 3 * removed)),
            refused=REFUSED,
            seconds=0.1,
        )
        for restorer, ratio, top1, params, macs, removed in (
            ("none", 0.3, 70.0, 700, 30_000, 3),
            ("none", 0.5, 20.0, 500, 20_000, 5),
            ("lbyl", 0.3, 86.12, 705, 30_000, 3),
            ("lbyl", 0.5, 35.0, 505, 20_000, 5),
        )
    )
    return Comparison("zoo:net", "test.npz", {"seed": 0}, accuracy(93.75), DENSE, cells)


def test_shares_that_are_left(comparison):
    assert cost_rows(comparison, "l2") == [
        ["channels", "70.0 %", "50.0 %"],
        ["parameters", "70.5 %", "50.5 %"],  # the most of all restorers
        ["MACs", "60.0 %", "40.0 %"],
    ]


def test_a_comparison_is_on_its_page(comparison):
    html = comparison_page(comparison, "A note.")
    page = read(html)
    assert page.tags.count("svg") == 3  # MACs, parameters, layers
    assert page.loaded == []
    assert "A note." in html
    assert "93.75 %" in html
    assert page.cells[:7] == ["top-1 (%)", "30 %", "50 %", "none", "70.00", "20.00", "lbyl"]
    assert "it is a residual stream" in page.cells


def test_layers_are_in_the_order_of_the_network(comparison):
    few, many = (
        replace(
            cell,
            ratio=ratio,
            groups=tuple(group(name, 8, removed) for name in names),
        )
        for cell, ratio, names, removed in (
            (comparison.cells[0], 0.1, ("b",), 1),
            (comparison.cells[1], 0.5, ("a", "b", "c"), 4),
        )
    )
    html = comparison_page(replace(comparison, cells=(few, many)))
    assert html.index("8 · 4 of 8") < html.index("7 · 4 of 8") < html.rindex("8 · 4 of 8")


def test_criteria_that_take_different_numbers_have_pictures_of_their_own(comparison):
    other = tuple(
        replace(cell, criterion="l1", groups=(group("a", 10, 1),)) for cell in comparison.cells
    )
    both = replace(comparison, cells=comparison.cells + other)
    assert read(comparison_page(both)).tags.count("svg") == 4
    same = tuple(replace(cell, criterion="l1") for cell in comparison.cells)
    both = replace(comparison, cells=comparison.cells + same)
    assert read(comparison_page(both)).tags.count("svg") == 3


def pruned(notes=()):
    timing = Latency(10.0, 9.0, 11.0, 30, 1, "cpu")
    faster = Latency(5.0, 4.0, 6.0, 30, 1, "cpu")
    groups = (group("layer.conv", 16, 4, notes),)
    after = Cost(params=750, macs=25_000, bytes=3000)
    recipe = {
        "criterion": {"name": "l2"},
        "restorer": {"name": "lbyl"},
        "ratio": {"layer*": 0.25},
        "groups": "inner",
        "round_to": 8,
    }
    return PruningResult(
        model="net.py:make",
        recipe=recipe,
        report=Report(groups, REFUSED, DENSE, after),
        before=Measured(DENSE, timing, accuracy(90.0)),
        after=Measured(after, faster, accuracy(88.5)),
        seconds=1.5,
    )


def test_before_and_after():
    rows = {row[0]: row[1:] for row in before_and_after(pruned())}
    assert rows["channels of pruned layers"] == ("16", "12", "-25.0 %")
    assert rows["latency, cpu, 1 thread"] == ("10 ms", "5 ms", "-50.0 %")
    assert rows["top-1, 1,000 images"] == ("90.00 %", "88.50 %", "-1.50")


def test_a_network_that_became_a_program_is_said_to_be_one():
    program = replace(pruned(), form="program")
    assert ("runs as", "its class", "a program", "") in before_and_after(program)
    assert AS_PROGRAM in unescape(pruning_page(program))
    assert AS_PROGRAM not in unescape(pruning_page(pruned()))
    assert program.to_json()["form"] == "program"


def test_a_pruning_is_on_its_page():
    page = read(pruning_page(pruned(("a note on the border",))))
    assert page.tags.count("svg") == 1
    assert page.loaded == []
    assert "12/16" in page.cells
    assert "a note on the border" in page.cells
    assert "notes" in page.cells
    assert "notes" not in read(pruning_page(pruned())).cells  # an empty column is left out


def test_nothing_pruned_still_makes_a_page(comparison):
    empty = tuple(Cell("l2", "none", 0.0, accuracy(93.75), DENSE, (), (), 0.1) for _ in range(1))
    nothing = Comparison("m", "d", {}, accuracy(93.75), DENSE, empty)
    assert "No layer lost channels." in comparison_page(nothing)
    assert cost_rows(nothing, "l2")[0] == ["channels", "100.0 %"]


def test_all_text_is_escaped():
    evil = "<img src=x onerror=alert(1)>"
    page = Page(evil, [evil], [Section(evil, [evil], tables=[Table([evil], [[evil]])])])
    html = render(page)
    assert "<img" not in html
    assert html.count("&lt;img src=x") == 7  # title twice, summary, heading, text, two cells

"""Accuracy over cost: lines, bands, rings, and what a page lets a reader leave out and open."""

import json
import re
from dataclasses import replace

import pytest

from bequest.measure import Accuracy, Cost, Latency
from bequest.report import sweep_page
from bequest.report.figures import SERIES
from bequest.report.tradeoff import Line, Point, front, tradeoff
from bequest.sweeping import Cell, Comparison, Failure, Sweep
from bequest.sweeping.comparison import Key
from tests.report.test_figures import texts
from tests.report.test_pages import DENSE, accuracy, group, read


def at(cell, x, y):
    return Point(cell, x, y, y, y)


def line(method, *points):
    return Line(method, f"l1, {method}", points)


def test_the_front_is_what_nothing_beats():
    lines = [
        line(0, at(0, 70, 90), at(1, 50, 60), at(2, 30, 50)),
        line(1, at(3, 70, 92), at(4, 55, 91), at(5, 30, 40)),
    ]
    assert [one.cell for one in front(lines, 93.0, lower=False)] == [3, 4, 1, 2]
    best = front([line(0, at(0, 70, 5.0), at(1, 50, 9.0)), line(1, at(2, 60, 5.0))], 4.0, True)
    assert [one.cell for one in best] == [2, 1]


def test_a_network_that_nothing_beats_leaves_only_better_ones_on_the_front():
    assert front([line(0, at(0, 100, 80)), line(1, at(1, 90, 95))], 93.0, False)[0].cell == 1


@pytest.fixture
def comparison():
    def cell(restorer, ratio, seed, top1):
        slow, fast = (Latency(x, x, x, 15, 1, "cpu") for x in (10.0, 10.0 * (1 - ratio / 2)))
        return Cell(
            criterion="l1",
            restorer=restorer,
            ratio=ratio,
            accuracy=Accuracy(top1, 99.0, 0.5, 1000, 0),
            cost=Cost(int(1000 * (1 - ratio)), int(50_000 * (1 - ratio)), 4),
            groups=(group("<b>a</b>", 10, 3),),
            refused=(),
            seconds=0.1,
            seed=seed,
            timed=(slow, fast),
        )

    cells = tuple(
        cell(restorer, ratio, seed, top1 + seed)
        for restorer, top1 in (("none", 20.0), ("lbyl", 60.0))
        for seed in (0, 1)
        for ratio in (0.3, 0.5)
    )
    failed = (Failure(Key("net", "l1", "lbyl", 1, 0.7), "it <failed>"),)
    return Comparison("net", "test.npz", {}, accuracy(93.75), DENSE, cells, failed=failed)


def test_a_picture_has_a_line_a_band_and_points_of_every_method(comparison):
    html = sweep_page(Sweep((comparison,)))
    assert read(html).tags.count("svg") == 3 + 1  # MACs, parameters, latency; layers
    pictures = re.findall(r"<svg.+?</svg>", html, re.DOTALL)[:3]
    for picture, what in zip(pictures, ("MACs", "parameters", "latency"), strict=True):
        assert f"{what} left (% of the dense network)" in texts(picture)
        for method in (0, 1):
            assert len(re.findall(rf'class="point" data-method="{method}"', picture)) == 2
            assert len(re.findall(rf'<g data-method="{method}"', picture)) >= 2
    assert "medians of 2 seeds" in html
    untimed = replace(comparison, cells=tuple(replace(c, timed=None) for c in comparison.cells))
    assert read(sweep_page(Sweep((untimed,)))).tags.count("svg") == 2 + 1


def test_methods_can_be_left_out_and_cells_opened(comparison):
    html = sweep_page(Sweep((comparison,)))
    assert read(html).loaded == []
    assert re.findall(r'type="checkbox" checked value="(\d)"', html) == ["0", "1"]
    assert len(re.findall(r'<tr data-cell="\d+" data-method="\d">', html)) == 8
    held = json.loads(re.search(r'id="cells">(.+?)</script>', html, re.DOTALL)[1])
    assert held["7"] == {
        "title": "l1, lbyl, 50 %, seed 1",
        "rows": [["<b>a</b>", "7/10", "0.250", "lbyl", ""]],
    }
    assert "<b>a</b>" not in html
    assert "it &lt;failed&gt;" in html


def test_two_networks_share_methods_and_not_cells(comparison):
    html = sweep_page(Sweep((comparison, replace(comparison, model="other"))))
    assert html.count('type="checkbox"') == 2
    assert len({*re.findall(r'<tr data-cell="(\d+)"', html)}) == 16
    assert "other: Accuracy over cost" in html


def test_perplexities_are_drawn_as_such(comparison):
    svg = tradeoff(replace(comparison, of_text=True), [line(0, at(0, 70, 9.0))], "MACs")
    assert "perplexity" in texts(svg)


def test_more_methods_than_colours_and_no_name_that_is_not_used(comparison):
    svg = tradeoff(comparison, [line(i, at(i, 50, 5.0 * i)) for i in range(12)], "MACs")
    assert not any(colour in svg for colour in SERIES)
    assert {f"var(--series-{i})" for i in range(8)} <= {*re.findall(r"var\(--series-\d\)", svg)}
    assert {*re.findall(r'data-method="(\d+)"', svg)} == {str(i) for i in range(12)}
    names = re.findall(r' id="([^"]+)"', svg)
    assert {*names} == {*re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)}

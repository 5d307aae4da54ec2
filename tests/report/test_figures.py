"""Pictures: well-formed, coloured by the page, safe with any layer's name."""

import re
import xml.etree.ElementTree as ET

import pytest

from bequest.report.figures import SERIES, Bar, curves, layers

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [
        "".join(element.itertext()).strip() for element in ET.fromstring(svg).iter(f"{SVG}text")
    ]


def test_curves_are_named_and_begin_at_the_dense_network():
    svg = curves({"none": [(0.3, 70.0), (0.5, 20.0)], "lbyl": [(0.3, 86.0), (0.5, 35.0)]}, 93.8)
    found = texts(svg)
    assert {"dense", "none", "lbyl", "0", "30", "50"} <= set(found)
    assert svg.startswith("<svg viewBox=")


def test_bars_tell_kept_and_total():
    svg = layers([Bar("a", 16, (12, 8)), Bar("b", 10, (7, 5))], ["stay at 30 %", "stay at 50 %"])
    found = texts(svg)
    assert {"a", "b", "12 · 8 of 16", "7 · 5 of 10", "stay at 30 %", "leave"} <= set(found)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a$b_c$", "a & b", "x" * 200])
def test_any_name_stays_text(name):
    for svg in (layers([Bar(name, 4, (2,))], ["stay"]), curves({name: [(0.5, 50.0)]}, 90.0)):
        assert "<script" not in svg
        shown = "".join(texts(svg))
        assert name in shown or name[-20:] in shown


def test_colours_come_from_the_page():
    svg = curves({str(i): [(0.5, 10.0 * i)] for i in range(len(SERIES))}, 95.0)
    assert not any(colour in svg for colour in SERIES)
    for number in range(len(SERIES)):
        assert f"var(--series-{number})" in svg
    assert "currentColor" in svg


def test_more_series_than_colours_still_differ():
    svg = curves({str(i): [(0.5, 5.0 * i)] for i in range(12)}, 95.0)
    assert {str(i) for i in range(12)} <= set(texts(svg))


def test_every_reference_is_met_and_no_other_name_is_kept():
    svg = curves({"none": [(0.5, 20.0)]}, 90.0)
    names = re.findall(r' id="([^"]+)"', svg)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    assert set(names) == used
    assert len(names) == len(set(names))

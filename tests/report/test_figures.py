"""Pictures: well-formed, coloured by the page, safe with any layer's name."""

import xml.etree.ElementTree as ET

import pytest

from bequest.report.figures import Bar, layers

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [
        "".join(element.itertext()).strip() for element in ET.fromstring(svg).iter(f"{SVG}text")
    ]


def test_bars_tell_kept_and_total():
    svg = layers([Bar("a", 16, (12, 8)), Bar("b", 10, (7, 5))], ["stay at 30 %", "stay at 50 %"])
    found = texts(svg)
    assert {"a", "b", "12 · 8 of 16", "7 · 5 of 10", "stay at 30 %", "leave"} <= set(found)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a$b_c$", "a & b", "x" * 200])
def test_any_name_stays_text(name):
    svg = layers([Bar(name, 4, (2,))], ["stay"])
    assert "<script" not in svg
    shown = "".join(texts(svg))
    assert name in shown or name[-20:] in shown

"""Draws the picture of the house, docs/assets/house.svg, from the code.

Rooms, what they are and what they import are read from ``src/bequest``, storeys from the contract
of layers in pyproject.toml. Written down here is nothing but how far to the right a room stands.

    python docs/house.py            draws it
    python docs/house.py --check    exits with 1 where the picture is not that of the code
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "bequest"
PICTURE = ROOT / "docs" / "assets" / "house.svg"

COLUMNS = {
    **dict.fromkeys(
        ("cli", "pruning", "analysis", "call", "selection", "restorers", "calibration"), 1.0
    ),
    **{
        "report": 0.45,
        "sweeping": 0.45,
        "robust": 1.55,
        "criteria": 0.0,
        "hypersphere": 2.2,
        "zoo": 3.2,
    },
    **{"measure": 1.0, "artifact": 2.2, "data": 3.2, "sparse": 1.6, "surgery": 1.6},
    **{"graph": 1.1, "execution": 1.1, "ground": 1.6},
}
"""Where rooms stand, in widths of a column."""

WIDE = {"graph": 2.2, "execution": 2.2, "ground": 3.2}
"""Rooms that reach over further columns."""

GROUND = ("config", "errors", "atomic")
"""Rooms that all others stand on, drawn as one."""

COLUMN, CARD, HEIGHT, LOW, GAP, MARGIN = 222, 204, 66, 52, 28, 18
WIDER = {"measure": 36}
"""What is added to the gap above a row, named by a room in it."""


def layers() -> list[list[str]]:
    """The storeys, the highest first, as ``make lint`` enforces them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    return [[room.strip() for room in layer.split("|")] for layer in contract["layers"]]


def imports() -> dict[str, set[str]]:
    """Room → the rooms that its files import; but for the version, and the table of contents."""
    found: dict[str, set[str]] = {room: set() for storey in layers() for room in storey}
    del found["_version"]
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in found:
            found[room] |= set(_imported(path)) & found.keys() - {room}
    return found


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "bequest":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [alias.name for alias in node.names]
            for name in [node.module or ""] if isinstance(node, ast.ImportFrom) else names:
                package, _, rest = name.partition(".")
                if package == "bequest":
                    yield rest.partition(".")[0]


def reduced(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that don't follow from others."""

    def below(room: str) -> set[str]:
        return arrows[room].union(*map(below, arrows[room]))

    return {
        room: {one for one in to if not any(one in below(other) for other in to)}
        for room, to in arrows.items()
    }


def grounded(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same with the rooms that all others stand on as one."""
    found: dict[str, set[str]] = {"ground": set()}
    for room, to in arrows.items():
        if room not in GROUND:
            found[room] = {"ground" if one in GROUND else one for one in to}
    return found


def noun(room: str) -> str:
    """What a room is: its docstring up to a stop."""
    path = PACKAGE / room / "__init__.py"
    text = (path if path.exists() else PACKAGE / f"{room}.py").read_text("utf-8")
    words = re.match(r"(.{8,}?)[:,;.](\s|$)", ast.get_docstring(ast.parse(text)) or "")
    return words[1] if words else ""


def open_to() -> dict[str, str]:
    """Room → where in it files are found by themselves: beside the others, or in a package."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("__init__.py")):
        if "\ndiscover(" in path.read_text("utf-8"):
            room, *inner = path.relative_to(PACKAGE).parts[:-1]
            found.setdefault(room, []).append(f"{inner[0]}/" if inner else "file")
    return {room: ", ".join(places) for room, places in found.items()}


@dataclass(frozen=True)
class Card:
    """A room's place in the picture."""

    x: float
    y: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    def side(self, right: bool) -> float:
        """Its right or left edge."""
        return self.x + (self.width if right else -self.width) / 2


def cards() -> dict[str, Card]:
    """Every room's place: storeys from top to bottom."""
    found, y = {}, float(MARGIN)
    storeys = [
        [room for room in storey if room not in (*GROUND, "_version")] for storey in layers()
    ]
    for storey in [*filter(None, storeys), ["ground"]]:
        y += sum(WIDER.get(room, 0) for room in storey)
        for room in storey:
            if room not in COLUMNS:
                raise SystemExit(f"docs/house.py: say in COLUMNS where '{room}' stands")
            x = MARGIN + CARD / 2 + COLUMN * COLUMNS[room]
            height = LOW if room in WIDE else HEIGHT
            found[room] = Card(x, y, CARD + COLUMN * WIDE.get(room, 0), height)
        y += height + GAP
    return found


def route(start: Card, end: Card, places: dict[str, Card]) -> str:
    """The path of an arrow, which ends pointing down.

    Straight where it can be, a curve to the next storey, else down a lane: above the end or, where
    rooms stand there, beside the start.
    """
    tip, turn = end.y - 3, 26 if end.x > start.x else -26
    inside = start.x == end.x or (end.width > CARD and end.side(False) < start.x < end.side(True))
    if inside and not _blocked(start.x, start, end, places):
        return f"M{start.x:g},{start.bottom:g}V{tip:g}"
    last = end.x - 44 * turn / 26
    if tip - start.bottom <= GAP + max(WIDER.values()):
        return _curve(start.x + 44 * turn / 26, start.bottom, last, tip)
    edge, y = start.side(turn > 0), start.y + start.height / 2
    free = not _blocked(end.x, start, end, places)
    lane = end.x if free else edge + 33
    down = f"M{edge:g},{y:g}H{lane - turn:g}Q{lane:g},{y:g} {lane:g},{y + 26:g}"
    before = end.y - GAP - max(WIDER.values())
    return f"{down}V{tip:g}" if free else down + _curve(lane, before, last, tip).replace("M", "L")


def _curve(x: float, y: float, end: float, tip: float) -> str:
    middle = (y + tip) / 2
    return f"M{x:g},{y:g}C{x:g},{middle:g} {end:g},{middle:g} {end:g},{tip:g}"


def _blocked(x: float, start: Card, end: Card, places: dict[str, Card]) -> bool:
    """Whether a room stands in the way down."""
    return any(
        start.bottom < card.y < end.y and card.side(False) < x < card.side(True)
        for card in places.values()
    )


STYLE = """
.panel { fill: #fbfaf8 } .card { fill: #ffffff; stroke: #d5d1ca } .base { fill: #f1eee9 }
.name { font: 600 16px ui-monospace, "DejaVu Sans Mono", monospace; fill: #23211e }
.noun { font: 13.5px system-ui, "DejaVu Sans", sans-serif; fill: #6d6860 }
.arrow { fill: none; stroke: #8b857b; stroke-width: 1.5 } .head { fill: #8b857b }
.open { fill: #d9efe6 }
.plus { font: 600 11px ui-monospace, "DejaVu Sans Mono", monospace; fill: #0d6b4d }
@media (prefers-color-scheme: dark) {
.panel { fill: #1d1f23 } .card { fill: #282b30; stroke: #43474e } .base { fill: #23262a }
.name { fill: #eceae6 } .noun { fill: #a5a9b0 } .arrow { stroke: #868b94 } .head { fill: #868b94 }
.open { fill: #163f33 } .plus { fill: #7fd8b4 }
}
"""


def svg() -> str:
    """The picture."""
    places, arrows, plus = cards(), reduced(grounded(imports())), open_to()
    width = 2 * MARGIN + CARD + COLUMN * max(COLUMNS.values())
    height = max(card.bottom for card in places.values()) + MARGIN + 26
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-labelledby="title">',
        '<title id="title">The rooms of bequest and what they import</title>',
        f"<style>{STYLE}</style>",
        '<marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="head" d="M0,0.5 L8,4 L0,7.5 z"/></marker>',
        f'<rect class="panel" width="{width:g}" height="{height:g}" rx="10"/>',
    ]
    for room, to in arrows.items():
        for one in sorted(to):
            path = route(places[room], places[one], places)
            lines.append(f'<path class="arrow" marker-end="url(#tip)" d="{path}"/>')
    for room, card in places.items():
        lines += _ground(card) if room == "ground" else _room(room, card, plus.get(room))
    lines.append(
        f'<text class="noun" x="{MARGIN}" y="{height - MARGIN + 4:g}">An arrow is an import; those '
        "that follow from others are left out.</text>"
    )
    x = MARGIN + 490
    lines += _plus(x, height - MARGIN - 9, "package/")
    lines.append(
        f'<text class="noun" x="{x + 96}" y="{height - MARGIN + 4:g}">A file that is put there is '
        "found by its name.</text>"
    )
    return "\n".join([*lines, "</svg>", ""])


def _room(room: str, card: Card, plus: str | None) -> list[str]:
    left, base = card.side(False), " base" if card.width > CARD else ""
    lines = [
        f'<rect class="card{base}" x="{left:g}" y="{card.y:g}" width="{card.width:g}" '
        f'height="{card.height:g}" rx="7"/>',
        f'<text class="name" x="{left + 11:g}" y="{card.y + 24:g}">{escape(room)}</text>',
    ]
    if plus:
        lines += _plus(card.side(True) - 10 - _width(plus), card.y + 8, plus)
    lines += _lines(left + 11, card.y, noun(room), 25 if card.width == CARD else 90)
    return lines


def _ground(card: Card) -> list[str]:
    lines = [
        f'<rect class="card base" x="{card.side(False):g}" y="{card.y:g}" width="{card.width:g}" '
        f'height="{card.height:g}" rx="7"/>'
    ]
    for number, room in enumerate(GROUND):
        x = card.side(False) + 11 + number * card.width / len(GROUND)
        lines.append(f'<text class="name" x="{x:g}" y="{card.y + 24:g}">{room}</text>')
        lines += _lines(x, card.y, noun(room), 50)
    return lines


def _lines(x: float, top: float, text: str, most: int) -> list[str]:
    return [
        f'<text class="noun" x="{x:g}" y="{top + 42 + 17 * number:g}">{escape(line)}</text>'
        for number, line in enumerate(textwrap.wrap(text, most))
    ]


def _width(plus: str) -> float:
    return 26 + 6.7 * len(plus)


def _plus(x: float, y: float, text: str) -> list[str]:
    return [
        f'<rect class="open" x="{x:g}" y="{y:g}" width="{_width(text):g}" height="18" rx="9"/>',
        f'<text class="plus" x="{x + 9:g}" y="{y + 13:g}">+ {escape(text)}</text>',
    ]


def main() -> None:
    """Draws the picture, or says whether it is out of date."""
    drawn = svg()
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(drawn, encoding="utf-8")
    elif not PICTURE.exists() or PICTURE.read_text("utf-8") != drawn:
        raise SystemExit(f"{PICTURE.name} is not what the code says; run python docs/house.py")


if __name__ == "__main__":
    main()

"""The examples of CONTRIBUTING.md: files to add, and how what they add is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
_EXAMPLE = re.compile(
    r"^`(?P<path>src/bequest/\S+\.py)`\n\n```python\n(?P<code>.+?)```\n\n"
    r"\* Python: `(?P<python>.+?)`\n\* Command line: `(?P<line>.+?)`\n"
    r"\* Section: [^\n]+ (?:under|of) (?P<chapter>.+?) in (?P<page>docs/\S+)\n",
    re.M | re.S,
)


class Example(NamedTuple):
    """A file, and what the page says of it."""

    path: str
    code: str
    python: str
    line: str
    chapter: str
    page: str


def examples() -> dict[str, Example]:
    """By the name of the file."""
    found = [Example(*match.groups()) for match in _EXAMPLE.finditer(PAGE.read_text("utf-8"))]
    return {Path(example.path).stem: example for example in found}

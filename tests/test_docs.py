"""What pages and docstrings name exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
SOURCES = sorted(ROOT.glob("src/bequest/**/*.py"))
_ROLE = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`~?([\w.]+)(?:\(\))?`")


def found(dotted):
    """Whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            held = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            fields = getattr(held, "__annotations__", {})
            if not hasattr(held, part):
                return part in fields
            held = getattr(held, part)
        return True
    return False


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_names_on_a_page_exist(path):
    code = re.findall(r"```.+?```|`[^`\n]+`", path.read_text("utf-8"), re.DOTALL)
    named = set(re.findall(r"\b(?:bequest|benchmarks)(?:\.\w+)+", "\n".join(code)))
    files = set(re.findall(r"\b(?:benchmarks|docs|tests|src)/[\w/.-]+\w", "\n".join(code)))
    missing = {name for name in named if not found(name)}
    missing |= {name for name in files if not (ROOT / name).exists()}
    if path.name == "CONTRIBUTING.md":  # the files of its examples are to be written
        missing -= set(re.findall(r"^`(src/bequest/\S+\.py)`$", path.read_text("utf-8"), re.M))
    assert not missing


def test_the_names_in_docstrings_exist():
    missing = []
    for path in SOURCES:
        text = path.read_text("utf-8")
        names = set(_ROLE.findall(text))
        if not names:
            continue
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        here = module.removesuffix(".__init__")
        for name in sorted(names):
            classes = re.findall(r"^class (\w+)", text, re.M)
            places = [f"{here}.{name}", *(f"{here}.{one}.{name}" for one in classes)]
            wanted = [name] if name.startswith("bequest.") else places
            if not any(map(found, wanted)):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert not missing

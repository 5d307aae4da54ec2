"""The picture of the house, and the table of its rooms, say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def house():
    """The script that draws it."""
    spec = spec_from_file_location("house", ROOT / "docs/house.py")
    module = module_from_spec(spec)
    sys.modules["house"] = module  # where its dataclasses are looked up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["house"]


def test_the_picture_is_that_of_the_code():
    words = [sys.executable, str(ROOT / "docs/house.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stale_picture_is_told(house, monkeypatch, tmp_path):
    stale = tmp_path / "house.svg"
    stale.write_text(house.svg().replace("restorers", "menders"))
    monkeypatch.setattr(house, "PICTURE", stale)
    monkeypatch.setattr(sys, "argv", ["house.py", "--check"])
    with pytest.raises(SystemExit, match=r"house\.svg is not what the code says"):
        house.main()


def test_all_arrows_point_down(house):
    places, arrows = house.cards(), house.reduced(house.grounded(house.imports()))
    assert sum(map(len, arrows.values())) >= len(places) - 1
    for room, below in arrows.items():
        for one in below:
            assert places[room].bottom < places[one].y, (room, one)


def test_no_rooms_overlap(house):
    places = [*house.cards().values()]
    for i, one in enumerate(places):
        for other in places[:i]:
            apart = one.side(False) >= other.side(True) or other.side(False) >= one.side(True)
            assert apart or one.y >= other.bottom or other.y >= one.bottom


def test_the_table_of_rooms_says_what_they_import(house):
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .+? \| ?(.*?) \|$", page, re.MULTILINE)
    told = {
        room: set(re.findall(r"`(\w+)`", imports))
        for rooms, imports in rows
        for room in re.findall(r"`(\w+)`", rooms)
    }
    assert told == house.reduced(house.imports())
    order = [*told]
    for room, below in told.items():
        assert all(order.index(one) > order.index(room) for one in below), room

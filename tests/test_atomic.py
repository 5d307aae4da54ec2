"""A file is replaced as a whole, or what was there stays."""

from __future__ import annotations

import pytest

from bequest.atomic import replacing


def test_what_was_written_replaces_the_file(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert partial.suffix == ".html"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_on_the_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_a_folder_that_is_none_is_an_error_of_the_system(tmp_path, folder):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match=folder), replacing(tmp_path / folder / "new") as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

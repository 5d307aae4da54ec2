"""Files appear as a whole or not at all, and JSON holds no NaN."""

import json

import pytest

from bequest.cli.files import require_file, write
from bequest.cli.output import Output, finite
from bequest.errors import BequestError, UsageError


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "page.html"
    write(path, "old")
    write(path, "nüw")
    assert path.read_text(encoding="utf-8") == "nüw"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BequestError, match="can't be written"):
        write(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_can_not_become_a_file_is_refused(tmp_path):
    require_file(None, "--html")
    require_file(tmp_path / "new.CSV", "--out", ".csv")
    with pytest.raises(UsageError, match="found the folder"):
        require_file(tmp_path, "--html")
    with pytest.raises(UsageError, match="there is no folder"):
        require_file(tmp_path / "gone" / "x", "--html")
    with pytest.raises(UsageError, match=r"expected \.csv, found new\.txt"):
        require_file(tmp_path / "new.txt", "--out", ".csv")


def test_nan_becomes_null():
    value = {"loss": float("nan"), "list": [1.5, float("inf")], "text": "x", "none": None}
    assert finite(value) == {"loss": None, "list": [1.5, None], "text": "x", "none": None}


def test_only_results_reach_the_standard_output(capsys):
    with Output(as_json=True) as output:
        print("from somewhere else")
        output.note("a note")
        output.show("a table")
        output.document({"top1": float("nan")})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"top1": None}
    assert "from somewhere else" in err
    assert "a note" in err
    assert "a table" not in out + err

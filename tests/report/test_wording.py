"""Numbers and names as people read them."""

import pytest

from bequest.report import wording


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["fc"], "fc"),
        (["a.0.conv", "a.1.conv"], "a.{0,1}.conv"),
        ([f"layer1.{i}.conv2" for i in range(9)], "layer1.{0-8}.conv2"),
        ([f"b.{i}" for i in (1, 3, 10)], "b.{1,3,10}"),
        (["l.0.conv1", "l.0.conv2", "l.1.conv1", "l.1.conv2"], "l.{0,1}.conv{1,2}"),
        (["d1.l1", "d1.l2", "d2.l1", "d2.l2", "d2.l3"], "d1.l{1,2}, d2.l{1-3}"),
        (["conv1", "conv1", "fc"], "conv1, fc"),
        (["a*1", "a*2"], "a*{1,2}"),
        ([], ""),
    ],
)
def test_names_that_differ_in_numbers_become_one(names, expected):
    assert wording.compact(names) == expected


def test_numbers_have_units():
    plain = [wording.count(v).replace("\N{NO-BREAK SPACE}", " ") for v in (0, 999, 1234, 855770)]
    assert plain == ["0", "999", "1.234 k", "855.8 k"]
    assert wording.size(12) == "12 B"
    assert wording.size(3440560).endswith("MB")
    assert wording.change(100, 66.7) == "-33.3 %"
    assert wording.change(0, 5) == ""
    assert wording.percent(93.754) == "93.75 %"
    assert wording.error(None) == "-"

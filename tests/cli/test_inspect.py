"""``bequest inspect``: every group, alike ones in one row, and what can't be pruned."""

import io

from rich.console import Console

from bequest.cli.views import inspection_tables
from bequest.selection.inspection import GroupView, Inspection


def view(name, **changes):
    fields = {
        "name": name,
        "kind": "inner",
        "size": 16,
        "rows": 1,
        "prunable": 16,
        "producers": (name,),
        "consumers": (),
        "obstacle": None,
        "reasons": (),
        "literal": (),
    }
    return GroupView(**{**fields, **changes})


def shown(*groups, walls=()):
    console = Console(width=100, record=True, file=io.StringIO())
    for item in inspection_tables(Inspection(groups, walls)):
        console.print(item)
    return console.export_text()


def test_resnet56_fits_on_a_screen(run):
    result = run("inspect", "zoo:resnet56")
    assert result.code == 0
    lines = result.out.splitlines()
    assert len(lines) < 30
    assert any("layer1.{0-8}.conv1" in line and "9 x 16" in line for line in lines)
    assert "31 groups, 1,130 channels: 1,120 can be pruned, of which 1,008" in result.out


def test_json_has_every_group(run):
    document = run("inspect", "zoo:lenet-300-100", "--json").json
    assert [(g["name"], g["size"], g["kind"]) for g in document["groups"]] == [
        ("ip1", 300, "inner"),
        ("ip2", 100, "inner"),
        ("ip3", 10, "output"),
    ]
    assert document["groups"][0]["consumers"] == ["ip2"]
    assert document["walls"] == []


def test_a_channel_of_several_rows_is_explained():
    text = shown(view("a.0.query", size=4, rows=16, prunable=4), view("a.1.query", size=4))
    assert "a channel is 16 rows of its layer, such as a whole head" in text
    assert "a.{0,1}" not in text


def test_alike_groups_share_a_row_and_a_remark():
    text = shown(
        view("a.0.conv", obstacle="conv2d in 'a.0.dw' lies between"),
        view("a.1.conv", obstacle="conv2d in 'a.1.dw' lies between"),
        view("a.2.conv", size=32, prunable=32),
    )
    assert "a.{0,1}.conv" in text
    assert "2 x 16" in text
    assert text.count("conv2d in 'a.{0,1}.dw' lies between") == 1
    assert "a.2.conv" in text


def test_frozen_channels_and_walls_are_told():
    text = shown(
        view("frozen", prunable=0, reasons=("aten.sort has no rule",)),
        view("partly", prunable=12, reasons=("padded",)),
        view("fc", kind="output", prunable=0, reasons=("the network's output 'logits'",)),
        walls=("aten.sort.default in 'pool'",),
    )
    assert "can't be pruned: aten.sort has no rule" in text
    assert "12 of 16" in text
    assert "some channels can't leave: padded" in text
    assert "the network's output 'logits'; pruned only where a ratio names" in text
    assert "aten.sort.default in 'pool'" in text
    assert "3 groups, 48 channels: 12 can be pruned" in text

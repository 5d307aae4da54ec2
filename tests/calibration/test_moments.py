"""Moments of a layer's rows: the same however the rows are gathered."""

from __future__ import annotations

import torch
from torch import nn

from bequest.calibration import rows
from bequest.calibration.moments import Moments
from bequest.graph.geometry import Geometry


def test_rows_that_are_gathered_in_parts_give_the_same_sums(monkeypatch):
    layer, x = nn.Conv2d(6, 4, 3, padding=1), torch.randn(8, 6, 7, 7)
    geometry = Geometry(False, (3, 3), (1, 1), (1, 1), (1, 1))
    found = []
    for limit in (2**26, 1):
        monkeypatch.setattr(rows, "AT_ONCE", limit)
        sums = Moments(geometry, layer.weight, layer.bias)
        with torch.no_grad():
            sums.add(geometry, [x], [layer(x) + 1])
        found.append(sums)
    assert found[0].rows == found[1].rows == 8 * 49
    for one, other in zip(found[0].centred(), found[1].centred(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3)
    for one, other in zip(found[0].means(), found[1].means(), strict=True):
        torch.testing.assert_close(one, other)


def test_layers_that_read_the_same_rows_share_their_sums():
    first, second, x = nn.Linear(6, 4), nn.Linear(6, 3, bias=False), torch.randn(3, 5, 6)
    geometry, pairs = (
        Geometry(linear=True),
        [(first, torch.randn(3, 5, 4)), (second, torch.randn(3, 5, 3))],
    )
    alone, shared = [], []
    for layer, target in pairs:
        like = shared[0].alone() if shared else None
        for found, one in ((alone, None), (shared, like)):
            sums = Moments(geometry, layer.weight, layer.bias, one)
            sums.add(geometry, x.split(1), target.split(1))
            found.append(sums)
    assert shared[1].gram is shared[0].gram
    for one, other in zip(alone, shared, strict=True):
        for left, right in zip(
            (*one.centred(), *one.means()), (*other.centred(), *other.means()), strict=True
        ):
            assert torch.equal(left, right)


def test_errors_that_stem_from_the_inputs_need_no_outputs():
    torch.manual_seed(0)
    first, second = nn.Linear(6, 4).double(), nn.Linear(6, 9, bias=False).double()
    geometry, dense = Geometry(linear=True), 5 + torch.randn(40, 5, 6, dtype=torch.float64)
    x = dense + 0.1 * torch.randn_like(dense) + 0.3
    before = None
    for layer in (first, second):
        plain = Moments(geometry, layer.weight, layer.bias)
        plain.add(geometry, x.split(7), layer(dense).split(7))
        lacking = Moments(geometry, layer.weight, layer.bias, before)
        lacking.add_lacking(geometry, x.split(7), (dense - x).split(7))
        before = lacking.alone()
        assert lacking.rows == plain.rows == 200
        for one, other in zip(
            (*plain.centred(), *plain.means()), (*lacking.centred(), *lacking.means()), strict=True
        ):
            torch.testing.assert_close(one, other)


def test_inputs_that_lack_nothing_leave_no_error():
    layer, x = nn.Linear(6, 4), 100 + torch.randn(9, 5, 6)
    sums = Moments(Geometry(linear=True), layer.weight, layer.bias)
    sums.add_lacking(Geometry(linear=True), [x], [x - x])
    assert not sums.cross.any()
    assert not sums.means()[1].any()


def test_products_of_rows_with_themselves_are_those_of_one_product():
    for shape in ((50, 7), (2, 300, 131), (1, 40, 260)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(rows.gram(x), x.mT @ x)

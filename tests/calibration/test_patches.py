"""The rows that a layer's weight is multiplied with, as its operator in the traced graph says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from bequest.calibration.patches import (
    as_weight,
    channel_major,
    channel_means,
    outputs_at,
    patches,
    place_count,
    spread_out,
    weight_rows,
)
from bequest.graph.geometry import LAYERS, geometry_of
from bequest.graph.trace import operator_of, trace
from tests.restorers.layers import CASES, Applied


def traced_geometry(model, x):
    (node,) = (
        n for n in trace(model, x).nodes if n.op == "call_function" and operator_of(n) in LAYERS
    )
    return geometry_of(node)


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda v: str(v).replace(" ", ""))
def test_patches_times_weights_are_the_layer(layer, shape):
    layer, x = layer.double(), torch.randn(shape, dtype=torch.float64)
    geometry = traced_geometry(layer, x)
    y = layer(x)
    places = torch.arange(place_count(geometry, y.shape))[::2]
    for wanted in (None, places):
        rows, expected = patches(geometry, x, y.shape, wanted), outputs_at(geometry, y, wanted)
        found = rows @ weight_rows(geometry, layer.weight).mT
        if layer.bias is not None:
            found = found + layer.bias.unflatten(0, (len(rows), 1, -1))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda v: str(v).replace(" ", ""))
def test_a_shift_comes_off_every_input_and_off_the_padding(layer, shape):
    layer, x = layer.double(), torch.randn(shape, dtype=torch.float64)
    geometry, y = traced_geometry(layer, x), layer(x)
    shift = torch.randn_like(channel_means(geometry, x))
    rows = patches(geometry, x, y.shape)
    order = channel_major(geometry, rows.shape[2])
    moved = patches(geometry, x, y.shape, None, shift)[:, :, order]
    torch.testing.assert_close(moved, rows[:, :, order] - spread_out(geometry, shift)[:, None])


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda v: str(v).replace(" ", ""))
def test_a_matrix_in_channel_major_order_becomes_the_weight_it_was(layer, shape):
    geometry = traced_geometry(layer.float(), torch.zeros(shape))
    rows = weight_rows(geometry, layer.weight)
    matrix = rows[:, :, channel_major(geometry, rows.shape[2])]
    assert torch.equal(as_weight(geometry, matrix, layer.weight.shape), layer.weight)


@pytest.mark.parametrize(
    ("shape", "call"),
    [
        ((3, 2, 8, 7), lambda x, w: F.conv2d(x, w, stride=2)),
        ((3, 2, 8, 7), lambda x, w: F.conv2d(x, w, None, 1, 2, 2)),
        ((3, 2, 8, 7), lambda x, w: F.conv2d(x, w, padding="same", dilation=(1, 2))),
        ((3, 2, 8, 7), lambda x, w: F.conv2d(x, w, padding="valid")),
        ((3, 4, 8, 7), lambda x, w: F.conv2d(x, w, groups=2, stride=(1, 2))),
        ((2, 8, 7), lambda x, w: F.conv2d(x, w, padding=1)),
        ((3, 4, 5, 4), lambda x, w: F.conv_transpose2d(x, w, stride=2, output_padding=1)),
        ((4, 5, 4), lambda x, w: F.conv_transpose2d(x, w, None, (2, 1), 1, (1, 0), 2, 1)),
    ],
)
def test_the_geometry_is_that_of_the_call_and_not_of_the_module_that_holds_the_weight(shape, call):
    held = nn.Conv2d(2, 4, 3, bias=False)  # neither strided nor padded
    model, x = Applied(held, call).double(), torch.randn(shape, dtype=torch.float64)
    geometry, y = traced_geometry(model, x), model(x)
    found = patches(geometry, x, y.shape) @ weight_rows(geometry, held.weight).mT
    torch.testing.assert_close(found, outputs_at(geometry, y))

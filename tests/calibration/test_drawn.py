"""Drawn images: as full of shapes at any size, with surfaces of many kinds."""

from __future__ import annotations

import math

import pytest
import torch

from bequest.calibration.inputs.leaves import dead_leaves
from bequest.calibration.inputs.textures import textures


def drawn(count, *shape, seed=0, value_range=None):
    return dead_leaves(count, shape, torch.Generator().manual_seed(seed), value_range)


def flat_share(images, step):
    """Share of pixels that differ from the next by less than ``step`` of the deviation."""
    change = (images[..., 1:] - images[..., :-1]).abs().amax(1)
    return float((change < step * images.std()).float().mean())


@pytest.mark.parametrize("side", [24, 96, 240])
def test_an_image_of_any_size_is_full_of_things(side):
    """Hardly a ninth of an image is of one colour, or a place that looks like the next."""
    images = drawn(8, 3, side, side)
    third = side // 3
    parts = images.unfold(2, third, third).unfold(3, third, third).flatten(4)
    assert float((parts.std(-1).amax(1) < 0.05).float().mean()) < 0.1
    assert flat_share(images, 0.001) < 0.25


@pytest.mark.parametrize("factor", [2, 4])
def test_a_larger_image_that_is_shrunk_looks_like_a_small_one(factor):
    """Sizes follow a power law: neighbours are as alike, whatever the distance is counted in."""
    small, large = drawn(64, 1, 40, 40), drawn(64, 1, 40 * factor, 40 * factor, seed=1)
    shrunk = torch.nn.functional.avg_pool2d(large, factor)
    found = [float((x * x.roll(5, 3))[..., 5:].mean() / x.square().mean()) for x in (small, shrunk)]
    assert abs(found[0] - found[1]) < 0.15
    assert min(found) > 0.4


@pytest.mark.parametrize(
    "shape", [(2, 300), (1, 9), (3, 1, 1), (3, 5, 40), (1, 12, 12, 12), (2, 3, 4, 5, 6), (1, 1)]
)
def test_images_of_any_number_of_dimensions(shape):
    images = drawn(5, *shape)
    assert images.shape == (5, *shape)
    assert bool(images.isfinite().all())
    assert torch.equal(images, drawn(5, *shape))
    assert not torch.equal(images, drawn(5, *shape, seed=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_defaults_of_torch_change_nothing(dtype):
    before, plainly = torch.get_default_dtype(), drawn(3, 2, 9, 11)
    torch.set_default_dtype(dtype)
    try:
        found = drawn(3, 2, 9, 11)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, plainly)


def test_a_long_signal_takes_no_more_shapes_than_can_be_seen():
    """The largest shape is at most so many times as large as the smallest: time stays bounded."""
    signal = drawn(2, 1, 200_000)
    assert bool(signal.isfinite().all())
    assert flat_share(signal, 1e-6) < 0.1


def test_images_differ_though_some_are_drawn_at_once():
    images = drawn(70, 3, 16, 16).flatten(1)
    alike = torch.corrcoef(images) - torch.eye(70)
    assert float(alike.max()) < 0.98
    assert abs(float(alike.mean())) < 0.05


def test_textures_are_standard_and_have_no_seam():
    found = textures(64, (30, 50), torch.Generator().manual_seed(0))
    assert found.shape == (64, 30, 50)
    torch.testing.assert_close(found.mean((1, 2)), torch.zeros(64), atol=1e-5, rtol=0)
    plain = found.flatten(1).abs().amax(1) == 0
    assert 0.05 < float(plain.float().mean()) < 0.5  # of what is fine in a larger image
    found = found[~plain]
    torch.testing.assert_close(found.std((1, 2)), torch.ones(len(found)), atol=1e-4, rtol=0)
    for dim in (1, 2):
        change = (found.roll(1, dim) - found).square()
        seam = change.select(dim, 0).mean(1) / change.mean((1, 2))
        assert float(seam.median()) < 1.5


def test_textures_are_of_several_kinds():
    """Some vary with the pixel, some slowly, some along one direction alone, some have edges."""
    found = textures(200, (180, 180), torch.Generator().manual_seed(1))
    assert float(found.flatten(1).std(1).min()) > 0.99
    across = [(found.roll(1, dim) - found).square().mean((1, 2)) for dim in (1, 2)]
    fineness = (across[0] + across[1]).log()
    assert float(fineness.std()) > 0.5
    direction = (across[0] / across[1]).log().abs()
    assert 0.1 < float((direction > math.log(2)).float().mean()) < 0.6
    kurtosis = found.pow(4).mean((1, 2))
    assert float((kurtosis < 2).float().mean()) > 0.15
    assert float((kurtosis > 2.5).float().mean()) > 0.15


@pytest.mark.parametrize("space", [(1,), (2, 2), (1, 7), (3, 3, 3)])
def test_textures_of_hardly_any_pixels(space):
    assert bool(textures(20, space, torch.Generator().manual_seed(0)).isfinite().all())

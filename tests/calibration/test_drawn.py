"""Drawn images: as full of shapes at any size, with surfaces of many kinds."""

from __future__ import annotations

import math

import pytest
import torch

from bequest.calibration.inputs import leaves
from bequest.calibration.inputs.leaves import dead_leaves
from bequest.calibration.inputs.shapes import Shapes
from bequest.calibration.inputs.textures import textures


def drawn(count, *shape, seed=0):
    return dead_leaves(count, shape, torch.Generator().manual_seed(seed))


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


SPACES = [(1,), (50,), (300,), (1, 1), (2, 2), (17, 23), (5, 60), (60, 5), (6, 7, 8), (3, 3, 30)]


def cover_of(space, radii, middle, form):
    """How much of every place a shape of each image covers, place by place in float64."""
    grids = torch.meshgrid(*(torch.arange(n).double() + 0.5 for n in space), indexing="ij")
    found = []
    for centre, radius, (turned, stretched, box, blurred) in zip(middle, radii, form, strict=True):
        x = [grid - float(c) for grid, c in zip(grids, centre, strict=True)]
        if len(space) > 1:
            angle = math.pi * float(turned)
            cos, sin = math.cos(angle), math.sin(angle)
            x[:2] = cos * x[0] - sin * x[1], sin * x[0] + cos * x[1]
        x = [x[0], *(one / (0.4 + 0.6 * float(stretched)) for one in x[1:])]
        sizes = torch.stack(x) / radius
        distance = sizes.abs().amax(0) if box < 0.5 else sizes.square().sum(0).sqrt()
        found.append(((1 - distance) * radius / (0.5 + 2 * float(blurred)) + 0.5).clamp(0, 1))
    return torch.stack(found)


def covered_by(shapes, count, space):
    """How much of every place the shapes cover, (shapes, count, *space)."""
    found = torch.zeros(len(shapes), count, *space)
    for index, window in enumerate(shapes.windows):
        found[index, :, *window] = shapes.cover(index)[1]
    return found


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("radius", [1.5, 4.2, 40.0])
@pytest.mark.parametrize("count", [1, 6])
def test_no_part_of_a_shape_is_cut_off_by_its_window(space, radius, count):
    """Middles anywhere and in corners, boxes turned by 45 degrees, the widest blur; one image,
    or some of which each has shapes of sizes of its own."""
    generator = torch.Generator().manual_seed(len(space))
    shares, form = (torch.rand(24, n, generator=generator) for n in (len(space), 4))
    shares[:2] = torch.tensor([0.0, 1.0])[:, None]
    form[:6] = torch.tensor([0.25, 1.0, 0.0, 1.0])
    middle = shares * torch.tensor(space)
    radii = radius * (1 + torch.rand(24, generator=generator))
    each = (-1, count)
    shapes = Shapes(space, radii.view(each), middle.view(*each, len(space)), form.view(*each, 4))
    found = covered_by(shapes, count, space).flatten(0, 1)
    naive = cover_of(space, radii, middle, form)
    torch.testing.assert_close(found.double(), naive, atol=1e-4, rtol=0)


def test_the_window_of_a_small_shape_is_small():
    """Else a large image would take the time of as many whole ones as it has shapes."""
    shapes = Shapes.drawn(1, (224, 224), torch.Generator().manual_seed(0))
    areas = [math.prod(part.stop - part.start for part in window) for window in shapes.windows]
    assert sum(areas) < 15 * 224 * 224
    assert len(areas) > 300


@pytest.mark.parametrize(
    "space", [(400,), (64, 64), (10, 90), (20, 20, 20), (6, 6, 6, 6), (5,) * 5]
)
def test_shapes_cover_as_much_in_any_number_of_dimensions(space):
    """Three images' volumes, but for what lies beyond two borders in each of them."""
    shapes = Shapes.drawn(16, space, torch.Generator().manual_seed(0))
    hidden, *others = covered_by(shapes, 16, space).flatten(2).mean(2).sum(1) / 16
    assert float(hidden) == 1
    assert 3 * 0.85 ** len(space) < float(sum(others)) < 3.2


@pytest.mark.parametrize("numbers", [1, 2**20])
def test_images_of_any_size_are_drawn_alike(numbers, monkeypatch):
    """One by one, each shape within a window of its own, or as many together as there are."""
    monkeypatch.setattr(leaves, "TOGETHER", numbers)
    images = drawn(64, 3, 24, 24)
    change = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3)) / images.std((1, 2, 3))
    assert 0.32 < float(change.mean()) < 0.40
    assert 0.05 < float(change.std()) < 0.15
    assert flat_share(images, 0.001) < 0.25


@pytest.mark.parametrize("shape", [(3, 40, 40), (1, 700, 700), (1, 60, 60, 60), (2, 900_000)])
def test_textures_hold_no_more_than_a_few_images_do(shape, monkeypatch):
    held, made = [], leaves.textures

    def counted(count, space, generator):
        held.append((count, math.prod(space)))
        return made(1, space, generator).expand(count, *space)

    monkeypatch.setattr(leaves, "textures", counted)
    monkeypatch.setattr(leaves, "_draw", lambda images, surfaces, generator: None)
    drawn(2, *shape)
    drawn(200, *shape[:1], *(min(side, 70) for side in shape[1:]))
    for count, pixels in held:
        assert count == 8 or (count > 8 and count * pixels <= 2**23)


@pytest.mark.parametrize("shape", [(3, 20, 20), (300, 30, 30), (900, 12), (2, 400, 400)])
def test_images_are_drawn_together_where_they_hold_little(shape, monkeypatch):
    """Counted with their channels: many of these take as much time as many pixels."""
    sizes, draw = [], leaves._draw

    def noted(images, surfaces, generator):
        sizes.append((len(images), images.numel()))
        draw(images, surfaces, generator)

    monkeypatch.setattr(leaves, "_draw", noted)
    drawn(7, *shape)
    assert sum(count for count, _ in sizes) == 7
    assert all(count == 1 or numbers <= 2**16 for count, numbers in sizes)
    assert (len(sizes) == 1) == (7 * math.prod(shape) <= 2**16)


@pytest.mark.parametrize(
    ("count", "shape"), [(32, (3, 32, 32)), (32, (1, 64, 64)), (128, (1, 28, 28)), (32, (2, 400))]
)
def test_images_that_are_drawn_at_once_vary_nearly_as_independent_ones(count, shape):
    """Else 256 of them would tell no more than a few."""
    found = []
    for seed in range(20):
        x = drawn(count, *shape, seed=seed).flatten(2)
        found.append((x[..., 1:] - x[..., :-1]).abs().mean((1, 2)) / x.std((1, 2)))
    roughness = torch.stack(found)
    independent = (roughness.var(1).mean() / count).sqrt()
    assert float(roughness.mean(1).std()) < 1.6 * float(independent)


def test_a_single_image_has_surfaces_too():
    flat = [flat_share(drawn(1, 1, 32, 32, seed=seed), 0.001) for seed in range(20)]
    assert max(flat) < 0.25


@pytest.mark.parametrize("space", [(300,), (1, 300), (300, 1), (20, 300)])
def test_what_is_long_in_one_direction_has_spots_and_stripes(space):
    found = textures(100, space, torch.Generator().manual_seed(0)).flatten(1)
    assert float((found.abs().amax(1) == 0).float().mean()) < 0.1


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

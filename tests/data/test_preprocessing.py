import numpy as np
import pytest
import torch
from PIL import Image

from bequest.data import Preprocessing
from bequest.errors import UsageError


def identity(size, crop=1.0):
    return Preprocessing((0.0,) * size[0], (1.0,) * size[0], size, crop)


def test_normalise_is_its_formula(pixels):
    images = pixels(5, 4, 6, 3)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    found = Preprocessing(mean, std, (3, 4, 6)).normalise(images)
    assert found.shape == (5, 3, 4, 6)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    for channel in range(3):
        expected = (images[..., channel] / 255 - mean[channel]) / std[channel]
        np.testing.assert_allclose(found[:, channel], expected, atol=1e-6)


def test_an_image_of_the_right_size_is_untouched(pixels):
    image = pixels(8, 8, 3)
    fitting = identity((3, 8, 8), crop=0.5)
    np.testing.assert_array_equal(fitting.fit(image), image)
    np.testing.assert_array_equal(fitting.fit(Image.fromarray(image)), image)


@pytest.mark.parametrize(("height", "width"), [(8, 20), (20, 8)])
def test_the_middle_of_the_longer_side_is_kept(height, width):
    image = np.zeros((height, width, 1), dtype=np.uint8)
    image[:, 6:14] = 255 if width > height else image[:, 6:14]
    if height > width:
        image[6:14] = 255
    np.testing.assert_array_equal(identity((1, 8, 8)).fit(image), np.full((8, 8, 1), 255))


def test_crop_keeps_the_middle_share():
    image = np.zeros((64, 64, 1), dtype=np.uint8)
    image[16:48, 16:48] = 200
    cropped = identity((1, 16, 16), crop=0.5).fit(image)
    assert (cropped[1:-1, 1:-1] == 200).all()  # at the edge the filter sees the pixels outside
    assert cropped.min() > 100
    assert (identity((1, 16, 16)).fit(image) == 200).mean() < 0.3


def test_resizing_agrees_with_resize_then_centre_crop():
    ramp = np.linspace(0, 255, 512, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (384, 512, 3)).copy())
    usual = np.asarray(image.resize((341, 256), Image.Resampling.BILINEAR)).astype(int)
    usual = usual[16:240, 58:282]
    found = identity((3, 224, 224), crop=0.875).fit(image).astype(int)
    assert abs(found - usual).max() <= 1


def test_grey_and_colour_convert_into_each_other(pixels):
    grey = pixels(8, 8, 1)
    np.testing.assert_array_equal(identity((3, 8, 8)).fit(grey), np.repeat(grey, 3, axis=2))
    colour = pixels(8, 8, 3)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert abs(identity((1, 8, 8)).fit(colour)[..., 0] - luma).max() <= 1


@pytest.mark.parametrize(
    ("mean", "std", "size", "crop", "message"),
    [
        ((0.0,), (1.0,), (3, 8, 8), 1.0, "mean: expected 3"),
        ((0.0,), (1.0, 1.0), (1, 8, 8), 1.0, "std: expected 1"),
        ((0.0,), (0.0,), (1, 8, 8), 1.0, "positive"),
        ((float("nan"),), (1.0,), (1, 8, 8), 1.0, "finite"),
        ((0.0, 0.0), (1.0, 1.0), (2, 8, 8), 1.0, "C = 1 or 3"),
        ((0.0,), (1.0,), (1, 0, 8), 1.0, "size"),
        ((0.0,), (1.0,), (8, 8), 1.0, "size"),
        ((0.0,), (1.0,), (1, 8, 8), 0.0, "crop"),
    ],
)
def test_values_out_of_range_are_refused(mean, std, size, crop, message):
    with pytest.raises(UsageError, match=message):
        Preprocessing(mean, std, size, crop)

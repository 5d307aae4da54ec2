import gzip
import io
import struct
import zipfile

import numpy as np
import pytest

from bequest.errors import DataError, UsageError


def write_idx(path, array, code=0x08):
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    (gzip.open if path.suffix == ".gz" else open)(path, "wb").write(header + array.tobytes())


def pair(folder, images, labels, suffix=""):
    path = folder / f"t10k-images-idx3-ubyte{suffix}"
    write_idx(path, images)
    write_idx(folder / f"t10k-labels-idx1-ubyte{suffix}", labels)
    return path


def gathered(loader):
    x, y = zip(*loader, strict=True)
    return np.concatenate([(part * 255).round().numpy() for part in x]), np.concatenate(y)


@pytest.mark.parametrize("shape", [(7, 8, 8), (7, 8, 8, 1), (7, 8, 8, 3)])
def test_npz_gives_its_pixels(tmp_path, pixels, opened, shape):
    images, labels = pixels(*shape), np.arange(7) % 3
    np.savez_compressed(tmp_path / "d.npz", x=images, y=labels)
    channels = shape[3] if len(shape) == 4 else 1
    x, y = gathered(opened(tmp_path / "d.npz", size=(channels, 8, 8), batch_size=3))
    np.testing.assert_array_equal(x, images.reshape(7, 8, 8, -1).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(y, labels)


def test_offset_and_limit(tmp_path, pixels, opened):
    np.savez(tmp_path / "d.npz", x=pixels(9, 8, 8), y=np.arange(9))
    assert list(gathered(opened(tmp_path / "d.npz", offset=4))[1]) == [4, 5, 6, 7, 8]
    assert list(gathered(opened(tmp_path / "d.npz", offset=4, limit=2))[1]) == [4, 5]
    for wrong in ({"offset": 9}, {"offset": -1}, {"limit": 0}):
        with pytest.raises(UsageError):
            opened(tmp_path / "d.npz", **wrong)


def test_arrays_of_another_size_are_resized(tmp_path, opened):
    np.savez(tmp_path / "d.npz", x=np.full((2, 28, 28), 77, dtype=np.uint8), y=[0, 1])
    x, _ = gathered(opened(tmp_path / "d.npz", size=(3, 32, 32)))
    assert x.shape == (2, 3, 32, 32)
    assert (x == 77).all()


IMAGES = np.zeros((4, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": IMAGES}, "keys x and y"),
        ({"x": IMAGES, "y": np.arange(3)}, "3 labels and 4 images"),
        ({"x": IMAGES, "y": np.arange(4.0)}, "integer per image, found float64"),
        ({"x": IMAGES, "y": np.ones((4, 10), dtype=int)}, "integer per image"),
        ({"x": IMAGES, "y": np.arange(4) - 1}, "found -1"),
        ({"x": IMAGES.astype(np.float32), "y": np.arange(4)}, "found float32"),
        ({"x": IMAGES[0], "y": np.arange(8)}, r"found uint8 \(8, 8\)"),
        ({"x": np.zeros((4, 3, 8, 8), np.uint8), "y": np.arange(4)}, r"\(4, 3, 8, 8\)"),
        ({"x": IMAGES[:0], "y": np.arange(0)}, "no images"),
        ({"x": IMAGES[:, :0], "y": np.arange(4)}, r"found uint8 \(4, 0, 8, 1\)"),
        ({"x": IMAGES, "y": np.array([0, 1, 2, None])}, "not a readable"),
    ],
)
def test_npz_of_another_form_is_refused(tmp_path, opened, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "d.npz")


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_truncated_npz_is_refused(tmp_path, pixels, opened, share):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=pixels(20, 8, 8), y=np.arange(20))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="not a readable"):
        opened(path)


def test_altered_npz_is_refused(tmp_path, pixels, opened):
    path = tmp_path / "d.npz"
    np.savez(path, x=pixels(20, 8, 8), y=np.arange(20))
    data = bytearray(path.read_bytes())
    data[600] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        opened(path)


@pytest.mark.parametrize("shape", [(10**4, 10**4, 10**2), (10**6, 10**6, 10**6), (2**62, 2, 2)])
def test_npz_that_declares_absurd_sizes_is_refused(tmp_path, opened, shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(100))
        archive.writestr("y.npy", b"")
    with pytest.raises(DataError, match=r"not a readable|larger than the memory"):
        opened(tmp_path / "d.npz")


def test_a_single_array_or_another_file_is_no_archive(tmp_path, opened):
    with (tmp_path / "d.npz").open("wb") as stream:
        np.save(stream, IMAGES)
    with pytest.raises(DataError, match="single array"):
        opened(tmp_path / "d.npz")
    (tmp_path / "t.npz").write_text("hello")
    with pytest.raises(DataError, match="not a readable"):
        opened(tmp_path / "t.npz")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_by_file_and_by_folder(tmp_path, pixels, opened, suffix):
    images, labels = pixels(6, 8, 8), np.arange(6, dtype=np.uint8)
    path = pair(tmp_path, images, labels, suffix)
    for given in (path, tmp_path):
        x, y = gathered(opened(given, size=(1, 8, 8)))
        np.testing.assert_array_equal(x[:, 0], images)
        np.testing.assert_array_equal(y, labels)


def test_idx_labels_may_be_unzipped_beside_zipped_images(tmp_path, pixels, opened):
    path = pair(tmp_path, pixels(6, 8, 8), np.arange(6, dtype=np.uint8), ".gz")
    zipped = tmp_path / "t10k-labels-idx1-ubyte.gz"
    zipped.with_suffix("").write_bytes(gzip.decompress(zipped.read_bytes()))
    zipped.unlink()
    assert opened(path, size=(1, 8, 8)).count == 6
    zipped.with_suffix("").unlink()
    with pytest.raises(DataError, match="expected the labels beside it"):
        opened(path)


def test_idx_calls_that_need_a_file_name(tmp_path, pixels, opened):
    path = pair(tmp_path, pixels(6, 8, 8), np.arange(6, dtype=np.uint8))
    with pytest.raises(UsageError, match="holds labels"):
        opened(tmp_path / "t10k-labels-idx1-ubyte")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match=r"several sets.*t10k.*train"):
        opened(tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx_is_refused(tmp_path, pixels, opened, suffix):
    path = pair(tmp_path, pixels(6, 8, 8), np.arange(6, dtype=np.uint8), suffix)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(DataError, match=r"truncated|more than it can hold"):
        opened(path)
    path.write_bytes(whole[:5])
    with pytest.raises(DataError, match=r"IDX header|truncated"):
        opened(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="found nothing"):
        opened(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((7, 8, 8), "but holds 384|more than it can hold"),
        ((5, 8, 8), "but holds more"),
        ((2**32 - 1, 2**32 - 1, 2**32 - 1), "more than it can hold"),
    ],
)
def test_idx_sizes_must_be_those_of_the_file(tmp_path, pixels, opened, suffix, sizes, message):
    path = pair(tmp_path, pixels(6, 8, 8), np.arange(6, dtype=np.uint8), suffix)
    opener = gzip.open if suffix else open
    with opener(path, "rb") as stream:
        data = stream.read()
    with opener(path, "wb") as stream:
        stream.write(data[:4] + struct.pack(">3I", *sizes) + data[16:])
    with pytest.raises(DataError, match=message):
        opened(path)


def test_idx_of_other_elements_is_refused(tmp_path, opened):
    path = pair(tmp_path, IMAGES, np.arange(4, dtype=np.uint8))
    write_idx(path, IMAGES.astype(">f4"), code=0x0D)
    with pytest.raises(DataError, match=r"IDX header 00000803.*found 00000d03"):
        opened(path)

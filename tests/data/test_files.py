import io
import warnings

import numpy as np
import pytest
from PIL import Image

from bequest.errors import DataError, UsageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def encoded(pixels, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Three cats, one dog; image i of a class has every pixel 10·i + label."""
    for label, (name, count) in enumerate((("cats", 3), ("dogs", 1))):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(count):
            grey = np.full((8, 8, 3), 10 * i + label, dtype=np.uint8)
            (tmp_path / "set" / name / f"{i}.png").write_bytes(encoded(grey))
    return tmp_path / "set"


def values(loader):
    return [
        (round(float(p[0, 0, 0] * 255)), int(k))
        for x, y in loader
        for p, k in zip(x, y, strict=True)
    ]


def test_folder_takes_one_of_each_class_in_turn(folder, opened):
    images = opened(folder, batch_size=2)
    assert images.classes == ("cats", "dogs")
    assert values(images) == [(0, 0), (1, 1), (10, 0), (20, 0)]
    assert values(images.subset(0, 2)) == [(0, 0), (1, 1)]


def test_folder_skips_what_is_no_image(folder, opened):
    (folder / "cats" / "notes.txt").write_text("not an image")
    (folder / "cats" / ".9.png").write_text("hidden")
    (folder / ".cache").mkdir()
    (folder / "labels.csv").write_text("a,b")
    (folder / "dogs" / "more").mkdir()
    (folder / "dogs" / "0.png").rename(folder / "dogs" / "more" / "0.PNG")
    assert opened(folder).count == 4


def test_folder_images_are_resized_and_converted(tmp_path, opened):
    (tmp_path / "a").mkdir()
    Image.new("L", (30, 20), 90).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (20, 30), (90, 90, 90, 0)).save(tmp_path / "a" / "alpha.png")
    Image.new("P", (8, 8), 0).save(tmp_path / "a" / "palette.gif")
    Image.new("CMYK", (40, 40)).save(tmp_path / "a" / "print.jpg")
    Image.new("LAB", (9, 9)).save(tmp_path / "a" / "lab.tif")
    for size in ((3, 8, 8), (1, 8, 8)):
        ((x, y),) = opened(tmp_path, size=size)
        assert x.shape == (5, *size)
        assert y.tolist() == [0] * 5
        assert values([(x[:1], y[:1])]) == [(90, 0)]  # alpha.png


def test_empty_folders_are_refused(tmp_path, opened):
    with pytest.raises(DataError, match="empty folder"):
        opened(tmp_path)
    (tmp_path / "loose.png").write_bytes(encoded(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(DataError, match="folder per class"):
        opened(tmp_path)
    (tmp_path / "cats").mkdir()
    with pytest.raises(DataError, match="the class 'cats', found none"):
        opened(tmp_path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.9])
def test_truncated_image_is_named(folder, opened, pixels, kind, share):
    data = encoded(pixels(64, 64, 3), kind)
    path = folder / "cats" / "1.png"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"cats.1\.png: expected a whole image"):
        list(opened(folder))


def test_formats_that_start_other_programs_are_refused(folder, opened):
    Image.new("RGB", (8, 8)).save(folder / "cats" / "1.png", "EPS")
    with pytest.raises(DataError, match=r"1\.png"):
        list(opened(folder))


def test_decompression_bombs_are_refused(folder, opened, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = folder / "cats" / "2.png"
    for side in (36, 100):  # over the limit, where Pillow warns; over twice the limit
        path.write_bytes(encoded(np.zeros((side, side), dtype=np.uint8)))
        with pytest.raises(DataError, match=r"2\.png.*pixels"), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            list(opened(folder))


def test_sixteen_bit_images_are_refused(folder, opened):
    (folder / "cats" / "1.png").write_bytes(encoded(np.zeros((8, 8), dtype=np.uint16)))
    with pytest.raises(DataError, match="8 bits per channel"):
        list(opened(folder))


def table(images, labels, column="image"):
    return pyarrow.table({column: images, "label": labels})


@pytest.mark.parametrize("struct", [False, True])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_parquet_across_row_groups(tmp_path, opened, struct, rows):
    data = [encoded(np.full((8, 8, 3), i, dtype=np.uint8)) for i in range(30)]
    images = [{"bytes": d, "path": None} for d in data] if struct else data
    parquet.write_table(table(images, list(range(30))), tmp_path / "d.parquet", row_group_size=rows)
    images = opened(tmp_path / "d.parquet", batch_size=7, workers=3)
    for _ in range(2):
        assert values(images) == [(i, i) for i in range(30)]
    assert values(images.subset(9, 12)) == [(9, 9), (10, 10), (11, 11)]


PNG = encoded(np.zeros((8, 8), dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table([PNG], [1], column="picture"), "columns image and label, found .'picture'"),
        (table([PNG], [0.5]), "integer per image"),
        (table([PNG], ["cat"]), "integer per image"),
        (table([PNG], [-1]), "found -1"),
        (table([PNG, PNG], [1, None]), "1 nulls"),
        (table([PNG][:0], [1][:0]), "integer per image|no images"),
        (table([b"no image"], [0]), "row 0: expected a whole image"),
        (table([PNG, None], [0, 0]), "row 1: expected the bytes"),
        (table(["cats/1.png"], [0]), "row 0: expected the bytes of an image, found str"),
        (table([{"path": "/etc/passwd"}], [0]), "not followed"),
    ],
)
def test_parquet_of_another_form_is_refused(tmp_path, opened, content, message):
    parquet.write_table(content, tmp_path / "d.parquet")
    with pytest.raises(DataError, match=message):
        list(opened(tmp_path / "d.parquet"))


@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_truncated_parquet_is_refused(tmp_path, opened, share):
    path = tmp_path / "d.parquet"
    parquet.write_table(table([PNG] * 9, [0] * 9), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="not a readable parquet"):
        opened(path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, opened, monkeypatch):
    from bequest.errors import MissingExtraError

    parquet.write_table(table([PNG], [0]), tmp_path / "d.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"bequest\[parquet\]"):
        opened(tmp_path / "d.parquet")


def test_unknown_formats_are_wrong_calls(tmp_path, opened):
    with pytest.raises(UsageError, match="found nothing"):
        opened(tmp_path / "absent")
    (tmp_path / "data.csv").touch()
    with pytest.raises(UsageError, match=r"found data\.csv"):
        opened(tmp_path / "data.csv")

"""A folder per class: ``cats/1.jpg``, ``dogs/7.png``."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from bequest.data.decode import decode
from bequest.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class ImageFolder:
    """Images whose class is the folder they lie in; labels count the sorted folder names.

    The order takes one image of each class in turn (sorted by path within a class), so that every
    prefix is as balanced as the folder allows. Sub-folders of a class belong to it; names that
    start with a dot are skipped, and so are files without an image's suffix.

    Args:
        root: the folder of the class folders.

    Raises:
        DataError: no class folders, or one without images.
    """

    classes: tuple[str, ...] | None

    def __init__(self, root: Path) -> None:
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not folders:
            raise DataError(f"{root}: expected a folder per class with images in it, found none")
        ranked = []
        for label, folder in enumerate(folders):
            images = sorted(path for path in folder.rglob("*") if _is_image(path))
            if not images:
                raise DataError(
                    f"{folder}: expected images ({' '.join(SUFFIXES)}) of the class "
                    f"'{folder.name}', found none"
                )
            ranked += [(rank, label, path) for rank, path in enumerate(images)]
        self.classes = tuple(folder.name for folder in folders)
        self._items = [(path, label) for _, label, path in sorted(ranked)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self._items[index]
        return decode(path, str(path)), label


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()

"""Where MODEL comes from when it is a word such as ``zoo:resnet56``: one file per prefix."""

from bequest.cli.sources.base import find, forms
from bequest.config import discover

__all__ = ["find", "forms"]

discover(__name__, __path__)

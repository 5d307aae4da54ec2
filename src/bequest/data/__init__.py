"""Labelled images from files: opening, preprocessing, batches decoded ahead of the network."""

from bequest.data.formats import open_images
from bequest.data.loader import ImageLoader
from bequest.data.preprocessing import Preprocessing

__all__ = ["ImageLoader", "Preprocessing", "open_images"]

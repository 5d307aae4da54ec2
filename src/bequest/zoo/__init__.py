"""The papers' networks, written once, and the reading of their published weights."""

from bequest.zoo.catalog import Entry, create, entry, names
from bequest.zoo.weights import load_weights

__all__ = ["Entry", "create", "entry", "load_weights", "names"]

"""Networks without single weights: their layers, and how zeros are left out of a file."""

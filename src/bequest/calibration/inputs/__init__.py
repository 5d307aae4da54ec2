"""Where the inputs that layers are observed and refitted with come from: one file a source."""

from bequest.calibration.inputs.base import Source
from bequest.calibration.inputs.synthetic import Synthetic
from bequest.calibration.inputs.written import Written
from bequest.config import discover

__all__ = ["Source", "Synthetic", "Written"]

discover(__name__, __path__)

"""What the layers of a network see over inputs."""

from bequest.calibration import inputs

__all__ = ["inputs"]

"""What was measured, as pages with pictures."""

from bequest.report.comparison import sweep_page
from bequest.report.pruning import Measured, PruningResult, pruning_page

__all__ = [
    "Measured",
    "PruningResult",
    "pruning_page",
    "sweep_page",
]

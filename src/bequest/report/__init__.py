"""What was measured, as pages with pictures."""

from bequest.report.comparison import Cell, Comparison, comparison_page
from bequest.report.pruning import Measured, PruningResult, pruning_page

__all__ = [
    "Cell",
    "Comparison",
    "Measured",
    "PruningResult",
    "comparison_page",
    "pruning_page",
]

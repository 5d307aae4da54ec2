"""One small rule per ATen operator; an operator without a rule walls its channels off by name."""

from bequest.graph.rules import (
    along,
    elementwise,
    indexing,
    layers,
    norms,
    products,
    shapes,
    spatial,
)
from bequest.graph.rules.base import Read, Reading, Role, Write
from bequest.graph.rules.forks import read

__all__ = ["Read", "Reading", "Role", "Write", "along", "elementwise", "indexing", "layers"]
__all__ += ["norms", "products", "read", "shapes", "spatial"]

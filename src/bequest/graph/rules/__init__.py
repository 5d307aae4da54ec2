"""One small rule per ATen operator; an operator without a rule walls its channels off by name."""

from bequest.graph.rules import along, elementwise, layers, norms, shapes, spatial
from bequest.graph.rules.base import Read, Reading, Role, Write, read

__all__ = ["Read", "Reading", "Role", "Write", "along", "elementwise", "layers", "norms", "read"]
__all__ += ["shapes", "spatial"]

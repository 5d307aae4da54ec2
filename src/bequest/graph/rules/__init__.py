"""One small rule per ATen operator; an operator without a rule walls its channels off by name."""

from bequest.config import discover
from bequest.graph.reading import Read, Reading, Role, Write
from bequest.graph.rules.forks import read

__all__ = ["Read", "Reading", "Role", "Write", "read"]

discover(__name__, __path__)

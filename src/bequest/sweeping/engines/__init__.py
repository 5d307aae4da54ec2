"""Where the work of a sweep is done: in this process, in several, or on a Ray cluster."""

from bequest.sweeping.engines.base import Done, Engine, Failed, Job, Reference
from bequest.sweeping.engines.local import local
from bequest.sweeping.engines.ray import Cluster

__all__ = ["Cluster", "Done", "Engine", "Failed", "Job", "Reference", "local"]

"""What networks are saved as: tensors and a plan, no pickle."""

from bequest.artifact.fingerprint import fingerprint
from bequest.artifact.parse import parse_plan
from bequest.artifact.plan import GroupPlan, Plan, Refusal
from bequest.artifact.store import load, load_plan, save

__all__ = [
    "GroupPlan",
    "Plan",
    "Refusal",
    "fingerprint",
    "load",
    "load_plan",
    "parse_plan",
    "save",
]

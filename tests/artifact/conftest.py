"""Saved artefacts of the small networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

from bequest.artifact.plan import Plan
from bequest.artifact.store import save
from tests.artifact.networks import CASES, Case


@dataclass(frozen=True)
class Saved:
    """An artefact with the model and the plan it was made from."""

    case: Case
    model: nn.Module
    plan: Plan
    folder: Path


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture
def saved(case, tmp_path) -> Saved:
    return keep(case, tmp_path / "out")


@pytest.fixture
def grouped(tmp_path) -> Saved:
    return keep(CASES["GroupedTail"], tmp_path / "out")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """One artefact for all examples; each test puts back the bytes that it changes."""
    return keep(CASES["GroupedTail"], tmp_path_factory.mktemp("artefact") / "out")


def keep(case: Case, folder: Path) -> Saved:
    model, plan = case.pruned(case.make())
    save(folder, model, plan)
    return Saved(case, model, plan, folder)

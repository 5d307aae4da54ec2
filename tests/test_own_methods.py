"""Criteria and restorers of the user's own work without registration."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest import config
from bequest.criteria.base import Criterion
from bequest.criteria.norm import L2
from bequest.errors import UsageError
from bequest.graph.units import Unit
from bequest.restorers.weight_space import Delivery, WeightSpace


@dataclass(frozen=True)
class Weighted(Criterion):
    """Fields that JSON can't hold, no name."""

    weights: Tensor
    bend: Callable[[Tensor], Tensor] = F.relu
    limits: tuple[float, float] = (0.0, float("inf"))

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        return self.bend(self.weights[: unit.size]).double()


class Plain(Criterion):
    """No dataclass, a name of its own."""

    name = "plainly-last"

    def __init__(self) -> None:
        self.cache: dict[object, object] = {nn.Linear: {1, 2}}
        self._hidden = 3

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        return torch.arange(unit.size).double()


class ToTheFirst(WeightSpace):
    """No dataclass, no name, no fields: everything goes to the first channel that stays."""

    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        matrix = unit.producer.weight.new_zeros(len(removed), len(kept))
        matrix[:, 0] = 0.5
        return Delivery(matrix)


@dataclass
class Named(ToTheFirst):
    """A field that is called like the name of the method."""

    name: str = "to-one"
    version: int = 7
    deep: list[object] = field(default_factory=lambda: [{"a": [2**70, "tab\x07"]}])


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


@pytest.mark.parametrize(
    "criterion", [Weighted(torch.arange(16.0)), Plain()], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("restorer", [ToTheFirst(), Named()], ids=lambda one: type(one).__name__)
def test_methods_of_ones_own_prune_save_and_load(tmp_path, criterion, restorer):
    model, x = network(), torch.randn(4, 6)
    pruned = bequest.prune(model, x, 0.5, criterion=criterion, restorer=restorer, progress=False)
    (only,) = pruned.plan.groups
    assert only.removed == tuple(range(8))
    assert only.restored_by == restorer.name
    json.dumps(pruned.plan.recipe)
    pruned.save(tmp_path / "out")
    loaded = bequest.load(tmp_path / "out", network())
    assert torch.equal(loaded(x), pruned.model(x))


def test_the_recipe_says_what_can_be_said():
    found = config.to_json(Weighted(torch.zeros(2, 3)))
    assert found == {
        "name": "Weighted",
        "version": 1,
        "weights": "tensor of float32, shape (2, 3)",
        "bend": "torch.nn.functional.relu",
        "limits": [0.0, "inf"],
    }
    plain = config.to_json(Plain())
    assert plain["name"] == "plainly-last"
    assert list(plain["cache"].values()) == ["builtins.set"]
    assert "_hidden" not in plain
    named = config.to_json(Named())
    assert (named["name"], named["version"]) == ("to-one", 1)
    assert named["deep"] == [{"a": [str(2**70), "'tab\\x07'"]}]


def test_a_method_derived_from_a_registered_one_has_a_name_of_its_own():
    class Other(L2):
        """Ranks as its parent does."""

    assert config.to_json(Other())["name"] == "Other"
    assert L2.name == "l2"


@pytest.mark.parametrize(
    ("given", "message"),
    [(ToTheFirst, r"write ToTheFirst\(\)"), (3, "of your own from Restorer"), (print, "Names: ")],
)
def test_what_is_no_method_is_refused_with_the_way_to_write_one(given, message):
    with pytest.raises(UsageError, match=message):
        bequest.prune(network(), torch.randn(1, 6), restorer=given)

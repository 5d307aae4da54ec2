"""Who leaves where a call doesn't say it: by what layers see, where they are looked at anyway."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bequest
from bequest.calibration.inputs import Synthetic
from bequest.call import Call
from bequest.criteria import L1, L2, OBS, kurtic2023obs
from bequest.criteria.base import Criterion
from bequest.errors import UnknownNameError, UsageError
from bequest.restorers import Regression

FEW = Synthetic(images=8, inversion=0)


def net(width: int = 12) -> nn.Sequential:
    """Two groups that plain convolutions read, and between them one that a grouped one reads."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 16, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(16, 4, 1),
    ).eval()


def pruned(**arguments: Any) -> bequest.Pruned:
    arguments = {"data": FEW, "restorer": Regression(refine=0), "round_to": 1} | arguments
    return bequest.prune(net(), torch.zeros(1, 3, 10, 10), progress=False, **arguments)


def removed(found: bequest.Pruned) -> dict[str, tuple[int, ...]]:
    return {group.name: group.removed for group in found.report.groups}


@pytest.mark.parametrize(
    ("arguments", "criterion"),
    [
        ({}, OBS(otherwise="l2")),
        ({"ratio": None, "target": "macs:0.6"}, OBS()),
        ({"ratio": None, "target": "latency:0.8"}, OBS(otherwise="l2")),
        ({"scope": "global"}, L2()),
        ({"restorer": "lbyl"}, L2()),
        ({"restorer": "none"}, L2()),
        ({"criterion": "l1"}, L1()),
    ],
)
def test_who_decides(arguments: dict[str, Any], criterion: Criterion) -> None:
    unsaid = {"ratio": 0.5, "target": None, "criterion": None, "scope": "group", "groups": "inner"}
    others = {"restorer": "regression", "round_to": 8, "seed": 0, "progress": False}
    assert Call.checked(**(unsaid | others | arguments)).criterion == criterion


def test_the_recipe_names_it() -> None:
    recipe = pruned().plan.recipe["criterion"]
    assert (recipe["name"], recipe["otherwise"]) == ("obs", "l2")


def test_groups_that_no_plain_layer_reads_are_ranked_by_weights() -> None:
    default, seen, weights = pruned(), pruned(criterion="obs"), pruned(criterion="l2")
    grouped = {one.group for one in seen.report.refused}
    assert len(grouped) == 1, "obs alone has to refuse one group of this network"
    assert not default.report.refused
    for name, channels in removed(default).items():
        assert channels == removed(weights if name in grouped else seen)[name]
    told = {group.name: group.predicted_error for group in default.report.groups}
    assert {name for name, error in told.items() if error is None} == grouped


def test_groups_that_would_take_minutes_are_ranked_by_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = pruned(criterion=OBS())
    monkeypatch.setattr(kurtic2023obs, "BEARABLE", 12 * (12 * 9) ** 2 - 1)
    default, weights = pruned(), pruned(criterion="l2")
    first, last = "0", "4"
    assert removed(default)[first] == removed(weights)[first] != removed(seen)[first]
    assert removed(default)[last] == removed(seen)[last]
    assert removed(pruned(criterion=OBS())) == removed(seen), "who asks for obs gets it"


def test_a_dead_channel_leaves_though_its_weights_are_the_largest() -> None:
    """A filter of large weights that nobody reads has the largest norm and is worth nothing."""
    model = net()
    with torch.no_grad():
        model[0].weight[5] *= 50
        model[2].weight[:, 5] = 0
    found = bequest.prune(
        model,
        torch.zeros(1, 3, 10, 10),
        {"0": 1 / 12},
        data=FEW,
        restorer=Regression(refine=0),
        round_to=1,
        progress=False,
    )
    assert removed(found) == {"0": (5,)}
    x = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(found.model(x).detach(), model(x).detach(), rtol=1e-3, atol=1e-3)


def test_a_wrong_substitute_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="l3"):
        OBS(otherwise="l3")
    for wrong in (L2(), "obs", 2, True):
        with pytest.raises(UsageError, match="name of another criterion"):
            OBS(otherwise=wrong)


def test_two_measures_are_not_ranked_against_each_other() -> None:
    with pytest.raises(UsageError, match="by one criterion"):
        pruned(criterion=OBS(otherwise="l2"), scope="global")

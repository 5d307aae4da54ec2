"""Sources of inputs, by name or as an object, for all that looks at inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import bequest
from bequest import config
from bequest.calibration.inputs import Source, Synthetic
from bequest.calibration.samples import Samples
from bequest.errors import BequestError, UsageError
from bequest.restorers import Regression
from tests.networks import Plain, randomise

X = torch.zeros(1, 3, 8, 8)


def same(first: bequest.Pruned, second: bequest.Pruned) -> bool:
    states = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def pruned(data=None, model=None, **arguments):
    model = randomise(Plain()) if model is None else model
    return bequest.prune(model, X, **{"round_to": 1, "progress": False, **arguments}, data=data)


def test_a_named_source_serves_criteria_whatever_the_restorer_is():
    model = randomise(Plain())
    arguments = {"criterion": "obs", "restorer": "lbyl", "ratio": 0.5, "model": model}
    plainly, named, given = (pruned(data, **arguments) for data in (None, "synthetic", Synthetic()))
    assert same(plainly, named)
    assert same(plainly, given)
    few = pruned(Synthetic(images=8, source="white"), **arguments)
    assert few.plan.recipe["inputs"]["count"] == 8


def test_a_regression_looks_at_what_the_source_makes():
    model = randomise(Plain())
    source = Synthetic(images=16, inversion=0, source="pink")
    fields = {"images": 16, "inversion": 0, "source": "pink"}
    named = pruned(source, model)
    assert same(named, pruned(None, model, restorer=Regression(**fields)))
    assert same(named, pruned(source, model, restorer=Regression(**fields)))  # they agree


def test_a_target_is_met_over_the_inputs_of_a_source():
    met = pruned(Synthetic(images=64), target="params:0.6", restorer="lbyl")
    assert met.plan.recipe["inputs"]["count"] == 64
    assert met.report.after.params <= 0.6 * met.report.before.params


def test_the_plan_says_which_source_was_named_and_nothing_else_changes():
    source = Synthetic(images=16, value_range=(0.0, 1.0))
    model = randomise(Plain())
    named = pruned(source, model).plan.recipe
    plainly = pruned(None, model, restorer=Regression(16, value_range=(0.0, 1.0))).plan.recipe
    batches = pruned([torch.randn(16, 3, 8, 8)], model).plan.recipe
    assert set(plainly["inputs"]) == set(batches["inputs"]) == {"real", "count", "notes"}
    said = named["inputs"].pop("source")
    assert named["inputs"] == plainly["inputs"]
    assert config.from_json("inputs", json.loads(json.dumps(said))) == Synthetic(
        images=16, value_range=[0.0, 1.0]
    )


def test_samples_of_an_earlier_call_come_from_a_source_too():
    model = randomise(Plain())
    samples = Synthetic(images=16).make(model, X, seed=0)
    assert same(pruned(samples, model), pruned(Synthetic(images=16), model))


def test_a_range_is_kept_to_where_none_was_said():
    within = Synthetic(images=4).within((0.0, 1.0))
    assert within == Synthetic(images=4, value_range=(0.0, 1.0))
    assert within.within((5.0, 6.0)) == within


@dataclass(frozen=True)
class Own(Source):
    """A source of the user's own, without registration."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float64

    def _make(self, model: nn.Module, example_inputs: object, seed: int, show: bool) -> Samples:
        return Samples(((torch.randn(self.shape).to(self.dtype),),), real=False)


def test_a_source_of_the_users_own_needs_no_name():
    found = pruned(Own((32, 3, 8, 8)))
    assert found.plan.recipe["inputs"]["source"]["name"] == "Own"
    with pytest.raises(UsageError, match=r"expected inputs of the shapes \[\(3, 8, 8\)\]"):
        pruned(Own((32, 3, 9, 9)))
    with pytest.raises(UsageError, match=r"expected torch.float32 inputs, found torch.int64"):
        pruned(Own((32, 3, 8, 8), torch.int64))


@pytest.mark.parametrize(
    ("data", "restorer", "expected"),
    [
        ("synthetik", "regression", "unknown source of inputs 'synthetik'. Did you mean 'synthet"),
        (Synthetic, "regression", r"expected an object, found the class; write Synthetic\(\)"),
        ("synthetic", "lbyl", "read weights alone; use restorer='regression', or leave data out"),
        ("synthetic", Regression(images=4), r"and Regression\(images=4\) asks for others"),
        (
            Synthetic(source="pink"),
            Regression(source="white", value_range=(0, 1)),
            r"source='pink'.* and Regression\(source='white', value_range=\(0, 1\)\) asks for othe",
        ),
    ],
)
def test_what_does_not_go_together_is_said(data, restorer, expected):
    with pytest.raises(UsageError, match=expected):
        pruned(data, restorer=restorer)


@pytest.mark.parametrize("kind", [Synthetic, Regression])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"images": 0}, "made-up inputs: expected images ≥ 1, found 0"),
        ({"images": 2.5}, "expected images ≥ 1, found 2.5"),
        ({"inversion": True}, "expected inversion ≥ 0, found True"),
        ({"source": "leafs"}, "unknown source 'leafs'. Did you mean 'leaves'"),
        ({"source": ["leaves"]}, "unknown source"),
        ({"value_range": (1.0, 0.0)}, r"low < high, found \(1.0, 0.0\)"),
        ({"value_range": 3}, "low < high, found 3"),
        ({"value_range": "ab"}, "low < high, found 'ab'"),
        ({"value_range": torch.zeros(2, 2)}, "low < high"),
        ({"value_range": (0.0, float("inf"))}, "low < high"),
    ],
)
def test_wrong_fields(kind, fields, expected):
    with pytest.raises(BequestError, match=expected):
        kind(**fields)


@dataclass(frozen=True)
class Chunks(Source):
    """Gives out what it holds."""

    made: object

    def _make(self, model: nn.Module, example_inputs: object, seed: int, show: bool) -> Samples:
        return self.made


@pytest.mark.parametrize(
    ("shapes", "fill"),
    [
        ([], 0.0),
        ([(0, 3, 8, 8)], 0.0),
        ([(8, 3, 8, 8), (4, 3, 8, 8)], 0.0),
        ([(8, 3, 8, 8), (8, 3, 8, 9)], 0.0),
        ([(8, 3, 8, 8)], float("nan")),
    ],
)
def test_what_a_source_makes_is_refused_by_its_name(shapes, fill):
    chunks = tuple((torch.full(shape, fill),) for shape in shapes)
    with pytest.raises(ValueError, match="source of inputs 'Chunks'"):
        pruned(Chunks(Samples(chunks, real=False)))


@pytest.mark.parametrize("made", [None, torch.zeros(8, 3, 8, 8)])
def test_a_source_that_makes_no_samples_is_refused_by_its_name(made):
    with pytest.raises(TypeError, match="source of inputs 'Chunks': expected Samples"):
        pruned(Chunks(made))


@dataclass(frozen=True)
class Labelled(Regression):
    """Has fields that are called like those of inputs, and passes none of them on."""

    source: str = "nobody"
    images: int | None = None

    def inputs(self) -> Source:
        return Synthetic(images=32, inversion=0)


def test_fields_that_only_sound_like_inputs_are_ones_own_affair():
    real = [torch.randn(16, 3, 8, 8)]
    for data in (real, Synthetic(images=32, inversion=0)):
        restorer = Labelled(source="mine", images=7)
        assert pruned(data, restorer=restorer).report.groups

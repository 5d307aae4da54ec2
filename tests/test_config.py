"""Packages of methods find their files; names come in alphabetical order."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from bequest import config, restorers
from bequest.calibration.inputs import Source
from bequest.criteria.base import Criterion
from bequest.errors import UsageError
from bequest.graph.rules.base import rule
from bequest.restorers.base import Restorer
from bequest.restorers.by_walk import ByWalk
from bequest.restorers.weight_space import WeightSpace
from bequest.selection.targets.base import Target

METHOD = """
from dataclasses import dataclass
from bequest.config import register

@register("sort of this test", {name!r})
@dataclass(frozen=True)
class Method:
    strength: float = 1.0
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of methods with no file in it but for its ``__init__``."""
    folder = tmp_path / "methods_of_this_test"
    folder.mkdir()
    text = "from bequest.config import discover\n\ndiscover(__name__, __path__)\n"
    (folder / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(config, "_REGISTRY", {})
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_a_file_in_the_package_is_enough(package):
    for file, name in (("first.py", "zeta"), ("second.py", "alpha")):
        (package / file).write_text(METHOD.format(name=name))
    __import__(package.name)
    assert config.names("sort of this test") == ["alpha", "zeta"]
    assert config.resolve("sort of this test", "zeta").strength == 1.0


def test_a_file_that_fails_is_not_left_out_silently(package):
    (package / "broken.py").write_text("import surely_not_installed\n")
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed") as raised:
        __import__(package.name)
    assert f"{package.name}.broken was imported" in raised.value.__notes__[0]


def test_a_name_that_is_taken_is_refused(package):
    for file in ("first.py", "second.py"):
        (package / file).write_text(METHOD.format(name="alpha"))
    with pytest.raises(ValueError, match=r"'alpha' is \S+first\.Method; give Method another name"):
        __import__(package.name)


def incomplete():
    """Classes that lack methods, and what they are told."""
    own = {"_deliver": lambda self, unit, kept, removed, seed: None}
    yield Restorer, own, r"def restore\(self, attempt: Attempt\) -> Restored\nor .+ WeightSpace"
    yield WeightSpace, {}, r"def _deliver\(self, unit: Unit, kept: .+\) -> Delivery$"
    yield ByWalk, {}, r"def refit\(self, seen: Seen\) -> Change$"
    yield Criterion, {"_filters": print}, r"def _scores\(.+\nor derive it from FilterCriterion"
    yield Source, {}, r"def _make\(self, model: nn\.Module, .+\) -> Samples$"
    yield Target, {"part": print, "cost": print}, r"def meet\(.+\nor derive it from Budget"


@pytest.mark.parametrize(("base", "methods", "message"), [*incomplete()])
def test_a_class_that_lacks_methods_is_told_which(base, methods, message):
    method = dataclass(frozen=True)(type("Half", (base,), dict(methods)))
    with pytest.raises(TypeError, match=f"Half is incomplete; write\n    {message}"):
        config.register("sort of this test", "half")(method)
    assert "half" not in config.names("sort of this test")


def test_a_method_of_ones_own_that_lacks_methods_is_told_which():
    class Half(Restorer):
        """Goes by its own name, without being registered."""

        def _deliver(self):
            """What restorers in weight space have."""

    with pytest.raises(TypeError, match=r"Half is incomplete; write(.|\n)+ WeightSpace$"):
        Half()


def test_an_operator_has_one_rule():
    with pytest.raises(ValueError, match="relu has a rule: activation"):
        rule("relu", role="join")(print)


def test_a_method_with_a_required_field_says_how_it_is_given():
    @config.register("kind of a test", "power")
    @dataclass(frozen=True)
    class Power(config.Method):
        exponent: float

    with pytest.raises(UsageError, match=r"no default for exponent; in Python give Power\(expo"):
        config.resolve("kind of a test", "power")
    assert config.resolve("kind of a test", Power(2.0)) == Power(2.0)


@pytest.mark.parametrize("value", ["0.1", True, [0.1]])
@pytest.mark.parametrize(
    ("method", "field"),
    [
        (restorers.Regression, "ridge"),
        (restorers.LBYL, "lambda2"),
        (restorers.Merge, "threshold"),
        (restorers.Merge, "weight"),
        (restorers.Coreset, "beta"),
        (restorers.Folding, "runs"),
    ],
)
def test_what_is_no_number_is_refused_where_one_is_expected(method, field, value):
    with pytest.raises(UsageError, match=f"{field}"):
        method(**{field: value})

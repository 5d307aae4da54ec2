"""Packages of methods find their files; names come in alphabetical order."""

from __future__ import annotations

import sys

import pytest

from bequest import config

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
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        __import__(package.name)

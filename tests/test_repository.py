"""The repository's own promises: what is written in one file agrees with the others."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import bequest
from bequest import config
from bequest.graph.rules.base import known_operators

_METHODS = bequest.criteria, bequest.restorers, bequest.robust  # importing them fills the registry
ROOT = Path(__file__).resolve().parents[1]
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the licence's text as the Apache Software Foundation publishes it."""


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


@pytest.fixture(scope="module")
def dependencies(project):
    """Every requirement of the package and its extras, but for those on its own extras."""
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    given = [Requirement(text) for requirements in lists for text in requirements]
    return [requirement for requirement in given if requirement.name != "bequest"]


def test_the_version_is_the_same_everywhere():
    (cited,) = re.findall(r"^version: (.+)$", read("CITATION.cff"), re.MULTILINE)
    newest = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)[0]
    assert bequest.__version__ == version("bequest") == cited == newest


def test_the_licence_is_apache_2(project):
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    assert project["license"] == "Apache-2.0"
    assert "\nlicense: Apache-2.0\n" in read("CITATION.cff")


@pytest.mark.parametrize("kind", ["criterion", "restorer", "inputs", "target", "strategy"])
def test_every_method_is_documented_with_its_parameters(kind):
    chapters = re.split(r"^## ", read("docs/methods.md"), flags=re.MULTILINE)
    plurals = {"criterion": "Criteria", "strategy": "Strategies", "inputs": "Inputs"}
    title = plurals.get(kind, f"{kind.capitalize()}s")
    (chapter,) = [text for text in chapters if text.startswith(f"{title}\n")]
    sections = dict(re.findall(r"^### `([^`]+)`\n(.+?)(?=^### |\Z)", chapter, re.M | re.S))

    assert sorted(sections) == sorted(config.names(kind))
    for name, text in sections.items():
        fields = dataclasses.fields(config.named(kind, name))
        assert [field.name for field in fields if f"`{field.name}` (" not in text] == [], name


def test_every_operator_with_a_rule_is_documented():
    _, _, rest = read("docs/methods.md").partition("\n## Operators\n")
    rows = re.findall(r"^\| (`.+`) \|", rest, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(
        {name.rpartition("::")[2].strip("_") for name in known_operators()}
    )


def test_every_dependency_has_its_reason(project):
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    lines = read("pyproject.toml").splitlines()
    for requirement in (text for requirements in lists for text in requirements):
        (line,) = [line for line in lines if line.strip().startswith(f'"{requirement}"')]
        assert re.search(r'",?\s+# \w+\W+\w+', line), f"no reason behind {requirement}"


def test_every_dependency_is_pinned_within_its_range(dependencies):
    pins = dict(re.findall(r"^([^#=\s]+)==(\S+)$", read("constraints.txt"), re.MULTILINE))
    for requirement in dependencies:
        assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_make_has_the_targets_that_the_documents_name():
    targets = set(re.findall(r"^([a-z][a-z-]*):.*## ", read("Makefile"), re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.+)$", read("Makefile"), re.MULTILINE)
    assert set(phony.split()) == targets  # `make help` lists every one
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")):
        code = re.findall(r"```.+?```|`[^`\n]+`", path.read_text(encoding="utf-8"), re.DOTALL)
        named = re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(code))
        assert set(named) <= targets, path.name


def test_the_readme_says_how_to_start():
    assert "make demo" in read("README.md")
    assert "make test" in read("README.md")


def test_every_page_is_in_the_documentation():
    nav = re.findall(r"^  - .+: (\S+\.md)$", read("mkdocs.yml"), re.MULTILINE)
    assert sorted(nav) == sorted(page.name for page in ROOT.glob("docs/*.md"))

"""CONTRIBUTING.md: each example is one file that works by its name where it is added."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bequest
from tests.contributing.networks import turned
from tests.contributing.page import ROOT, examples

WORKED = {"peak", "nearest", "bias", "scanned", "energy", "turning", "mlp"}


@pytest.fixture
def copy(tmp_path):
    """The package somewhere else, where files can be added."""
    shutil.copytree(Path(bequest.__file__).parent, tmp_path / "src/bequest")
    return tmp_path


def python(copy, *words):
    """Python, started where the copy is the package."""
    paths = os.pathsep.join([str(copy / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_example_works_by_its_name(copy):
    assert examples().keys() == WORKED
    for example in examples().values():
        path = copy / example.path
        assert path.parent.is_dir()
        assert not path.exists()
        path.write_text(example.code, encoding="utf-8")
    done = python(copy, "-m", "pytest", "-p", "no:cacheprovider", "tests/contributing/in_a_copy.py")
    assert done.returncode == 0, done.stdout[-8000:]


def test_every_example_has_the_style_of_the_house(tmp_path):
    for example in examples().values():
        (tmp_path / Path(example.path).name).write_text(example.code, encoding="utf-8")
    for check in (["check"], ["format", "--check"]):
        command = ["ruff", *check, "--no-cache", "--config", ROOT / "pyproject.toml", tmp_path]
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


def test_every_example_names_a_chapter_to_write_in():
    for example in examples().values():
        assert f"\n## {example.chapter}\n" in (ROOT / example.page).read_text("utf-8")


def test_a_restorer_by_walk_takes_twenty_lines():
    assert len(examples()["bias"].code.splitlines()) <= 20


def test_without_its_rule_the_operator_is_a_wall():
    (wall,) = bequest.inspect(turned(), torch.zeros(2, 3, 6, 6)).walls
    assert wall.startswith("rot90")


TRIES = """
import sys
from importlib import import_module
from pathlib import Path
from bequest.cli import main

for package in ("bequest.criteria", "bequest.graph.rules"):
    try:
        import_module(package)
    except Exception as error:
        print(type(error).__name__, *error.__notes__)
# Which of the two a command meets first is left open.
(Path(import_module("bequest").__file__).parent / "criteria/broken.py").unlink()
sys.argv = ["bequest", "inspect", "zoo:lenet-300-100"]
main()
"""


def test_a_file_that_fails_is_not_left_out_silently(copy):
    (copy / "src/bequest/criteria/broken.py").write_text("def half(:\n", encoding="utf-8")
    (copy / "src/bequest/graph/rules/lost.py").write_text("import surely_not_installed\n")
    done = python(copy, "-c", TRIES)
    assert done.stdout.splitlines() == [
        "SyntaxError It was raised as bequest.criteria.broken was imported.",
        "ModuleNotFoundError It was raised as bequest.graph.rules.lost was imported.",
    ]
    assert done.returncode == 1
    assert "surely_not_installed" in done.stderr
    assert "bequest.graph.rules.lost was imported" in done.stderr

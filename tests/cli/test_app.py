"""The console script: help, version, exit codes, and what becomes of an error."""

import subprocess
import sys
from pathlib import Path

import pytest

import bequest
from bequest.cli import app as application


def test_help_and_version(run):
    overview = run("--help")
    assert overview.code == 0
    for command in ("demo", "prune", "evaluate", "compare", "inspect"):
        assert command in overview.out
        own = run(command, "--help")
        assert own.code == 0
        assert "Examples" in own.out
        assert f"bequest {command}" in own.out
        assert "--json" in own.out
    assert run("--version").out.strip() == f"bequest {bequest.__version__}"


@pytest.mark.parametrize("words", [("frobnicate",), ("prune",), ("evaluate", "zoo:resnet56")])
def test_incomplete_calls_exit_with_2(run, words):
    result = run(*words)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_help_does_not_load_torch():
    # The package's own __init__ loads everything; this is about the command line alone.
    home = Path(bequest.__file__).parent
    program = f"""
import sys, types
package = types.ModuleType("bequest")
package.__path__ = [{str(home)!r}]
sys.modules["bequest"] = package
import bequest.cli
assert not {{"torch", "matplotlib", "numpy"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def raising(error):
    def command():
        raise error

    return command


def test_an_interrupt_is_quiet(run, monkeypatch):
    monkeypatch.setattr(application, "app", raising(KeyboardInterrupt()))
    result = run()
    assert (result.code, result.out, result.err) == (130, "", "")


def test_an_unexpected_error_is_one_line_and_a_hint(run, monkeypatch):
    monkeypatch.delenv("BEQUEST_DEBUG", raising=False)
    monkeypatch.setattr(application, "app", raising(ZeroDivisionError("by zero\nmore")))
    result = run()
    assert result.code == 1
    assert result.err.splitlines()[0] == "unexpected ZeroDivisionError: by zero"
    assert "BEQUEST_DEBUG=1" in result.err


def test_debugging_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("BEQUEST_DEBUG", "1")
    monkeypatch.setattr(application, "app", raising(ZeroDivisionError("by zero")))
    with pytest.raises(ZeroDivisionError):
        application.main()

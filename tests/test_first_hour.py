"""docs/first-hour.md: the session prints what the page says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[1] / "docs/first-hour.md"


@pytest.fixture
def gradients():
    """Recorded again after a session that turned them off."""
    yield
    torch.set_grad_enabled(True)


def test_the_session_prints_what_the_page_says(gradients, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"^```pycon\n(.+?)^```$", text, re.M | re.S)
    assert text.count("```") == 2 * len(blocks)
    session = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    said = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(session, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)

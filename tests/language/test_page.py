"""The page on language models shows what its benchmark wrote down."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_texts_and_numbers_are_those_of_the_benchmark():
    found = json.loads((ROOT / "benchmarks/results/stories.json").read_text("utf-8"))
    lines = (ROOT / "docs/language-models.md").read_text("utf-8").splitlines()
    page = " ".join(" ".join(lines).replace("> ", "").split())
    for texts in found["texts"]:
        for text in texts.values():
            assert " ".join(text.split()) in page
    for row in found["rows"]:
        assert f"{row['perplexity, mean']:.2f}" in page


def test_what_must_hold_of_written_tokens():
    found = json.loads((ROOT / "benchmarks/results/stories.json").read_text("utf-8"))
    held = {(r["pruned"], r["ratio"], r["seen"]): r["perplexity, mean"] for r in found["rows"]}
    for (part, ratio, seen), value in held.items():
        if seen == "written by the network":
            text = held[part, ratio, "text of the domain"]
            assert value < held.get((part, ratio, "another domain's text"), 8.0)
            assert not ratio or value <= (1.05 if ratio == 0.5 else 1.03) * text

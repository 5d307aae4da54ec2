"""``--text``: perplexity before and after, and text in the place of what a network writes."""

from __future__ import annotations

import json
import math

import pytest

from tests.language.networks import causal

STORY = "the cat sat on the mat and the dog ran to the tree . a bird sang in the tree . " * 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama with a tokenizer of words, as transformers saves them."""
    place = tmp_path_factory.mktemp("language") / "llama"
    causal("llama", vocab_size=40, num_hidden_layers=1).save_pretrained(place)
    save_tokenizer(place, sorted(set(STORY.split())))
    return place


def save_tokenizer(place, words):
    tokenizers = pytest.importorskip("tokenizers", reason="needs bequest[hf]")
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(["<unk>", "<s>", *words])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>"
    ).save_pretrained(place)


@pytest.fixture
def story(tmp_path):
    (tmp_path / "story.txt").write_text(STORY, encoding="utf-8")
    return tmp_path / "story.txt"


def test_the_perplexity_of_a_text(run, folder, story):
    words = ("evaluate", f"hf:{folder}", "--text", str(story), "--json")
    found = run(*words).json
    assert found["accuracy"] is None
    assert found["perplexity"]["windows"] == len(STORY.split()) // 64
    few = run(*words, "--window", "16", "--stride", "4").json["perplexity"]
    assert few["windows"] == (len(STORY.split()) - 16) // 4 + 1
    assert few["perplexity"] == pytest.approx(found["perplexity"]["perplexity"], rel=0.5)
    shown = run("evaluate", f"hf:{folder}", "--text", str(story))
    assert "perplexity" in shown.out
    assert "tokens per second" in shown.out


def test_a_column_of_texts(run, folder, story, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs bequest[parquet]")
    parquet = pytest.importorskip("pyarrow.parquet")
    half = STORY[: len(STORY) // 2]
    table = pyarrow.table({"text": [half, None, "", half], "label": [0, 1, 0, 1]})
    parquet.write_table(table, tmp_path / "story.parquet")
    one, other = (
        run("evaluate", f"hf:{folder}", "--text", str(path), "--json").json["perplexity"]
        for path in (story, tmp_path / "story.parquet")
    )
    assert one["perplexity"] == pytest.approx(other["perplexity"], rel=1e-6)


def test_pruned_by_itself_and_by_a_text(run, folder, story, tmp_path):
    words = (
        "prune",
        f"hf:{folder}",
        "--ratio",
        "*.up_proj=0.5",
        "--window",
        "16",
        "--text",
        str(story),
    )
    source = ("--data", "written(rows=8, length=16)")
    written = run(*words, *source, "-o", str(tmp_path / "out"), "--json").json
    assert written["before"]["perplexity"]["windows"] == len(STORY.split()) // 16
    assert written["notes"][0].startswith("inputs: 8 texts of 16 tokens")
    calibrated = run(*words, "--calibrate", "--json").json
    assert calibrated["recipe"]["inputs"]["real"]
    windows = len(STORY.split()) // 16
    assert calibrated["recipe"]["inputs"]["count"] == min(windows // 2, 64)
    assert calibrated["before"]["perplexity"]["windows"] == windows - windows // 2
    again = run("evaluate", str(tmp_path / "out"), "--text", str(story), "--json").json
    assert again["perplexity"]["loss"] == pytest.approx(
        written["after"]["perplexity"]["loss"], rel=1e-5
    )


def test_a_network_that_reads_tokens_is_to_be_evaluated_on_a_text(run, folder, tmp_path):
    words = ("--ratio", "*.up_proj=0.5", "--restorer", "none", "-o", str(tmp_path / "out"))
    shown = run("prune", f"hf:{folder}", *words)
    assert "out --text FILE" in " ".join(shown.err.split())


def test_restorers_are_compared_by_perplexity(run, folder, story, tmp_path):
    words = ("compare", f"hf:{folder}", "--text", str(story), "--window", "16", "--ratios", "0.5")
    page = tmp_path / "page.html"
    cells = tmp_path / "cells.json"
    handing = ("--calibrate", "--restorers", "regression")
    shown = run(*words, *handing, "--html", str(page), "-o", str(cells))
    (found,) = json.loads(cells.read_text("utf-8"))["cells"]
    assert f"{math.exp(found['accuracy']['loss']):.4g}" in page.read_text("utf-8")
    assert "Perplexity; leaving channels chosen by l2" in shown.out


def test_wrong_calls(run, net, folder, story, tmp_path):
    (tmp_path / "short.txt").write_text("the cat sat", encoding="utf-8")
    (tmp_path / "blank.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    causal("llama").save_pretrained(tmp_path / "mute")
    causal("llama", vocab_size=8).save_pretrained(tmp_path / "small")
    save_tokenizer(tmp_path / "small", sorted(set(STORY.split())))
    text, given = f"hf:{folder}", ("--text", str(story))
    wrong = {
        (text,): "expected --data PATH or --text FILE, found neither",
        (text, "--window", "8"): "--window says something of the text of --text",
        (text, *given, "--data", str(tmp_path)): "--text and --data don't go together",
        (text, *given, "--limit", "3"): "--text and --limit don't go together",
        (text, *given, "--window", "1"): "--window of at least 2 tokens",
        (text, *given, "--window", "8", "--stride", "9"): "window 8 and stride 9",
        (text, "--text", str(tmp_path / "none")): "expected a file, found nothing at",
        (text, "--text", str(tmp_path / "short.txt")): "one window of 64 tokens, found 3 in",
        (
            f"{net}:make",
            "--size",
            "3x8x8",
            *given,
        ): "a network that reads tokens and has a tokenizer",
        (f"hf:{tmp_path / 'mute'}", *given): "expected a tokenizer (tokenizer.json) beside",
        (f"hf:{tmp_path / 'small'}", *given): "and the network knows 8; is it another network's?",
    }
    for words, message in wrong.items():
        found = run("evaluate", *words)
        assert found.code == 2, words
        assert message in " ".join(found.err.split()), words
    for name, message in (("blank", "expected a text, found none"), ("latin", "in UTF-8")):
        found = run("evaluate", text, "--text", str(tmp_path / f"{name}.txt"))
        assert found.code == 2
        assert message in " ".join(found.err.split())
    for words, message in {
        ("--sparsity", "0.5", *given): "--text and --sparsity don't go together",
        ("--calibrate",): "of the images of --data; give --data PATH, or --text FILE",
        (
            "--calibrate",
            "--data",
            "written",
            *given,
        ): "--data written and --calibrate don't go together",
        (
            "--calibrate",
            "--text",
            str(story),
            "--window",
            "1000",
        ): "--calibrate sets windows of 1000",
    }.items():
        found = run("prune", text, *words)
        assert found.code == 2, words
        assert message in " ".join(found.err.split()), words

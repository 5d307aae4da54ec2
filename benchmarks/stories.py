"""What is a real language model worth that was pruned on tokens of its own, and on others?

stories260k (Llama: 5 layers, 8 heads, grouped queries, SwiGLU; from ``../shared``) without a share
of its MLPs' units or of its heads, chosen by obs and restored by regression. Both look at 128 rows
of 128 tokens: those that the network writes itself (what ``bequest.prune`` does by itself), real
ones of its domain (children's stories); and, with two seeds of three, of another domain (Python's
manual, in the same tokens), and uniform ones. Perplexity is that of windows of 128 tokens of
held-out stories, which nothing was decided on. Last come two beginnings, greedily continued by the
dense network and without 20 % of the units.
"""

from __future__ import annotations

import itertools
import re
from pydoc_data.topics import topics

import numpy as np
import torch
import transformers
from tests.timm_support import name_missing_operators
from torch import Tensor, nn

import bequest
from benchmarks.record import record, shared_folder
from benchmarks.tok512 import Tokenizer
from bequest.calibration.inputs import Written
from bequest.calibration.samples import Samples

ROWS = LENGTH = 128
SEEDS, FEW = (0, 1, 2), (0, 1)
MLP, HEADS = "model.layers.*.mlp.*", "model.layers.*.self_attn.*"
CUTS = [("MLP", MLP, ratio) for ratio in (0.1, 0.2, 0.3, 0.5)]
CUTS += [("heads", HEADS, ratio) for ratio in (0.25, 0.5)]
TARGET = "params:0.82"
BEGINNINGS = ("Once upon a time, there was a little girl named Lily.", "Tom had a red ball.")
SHOWN = 60
"""Tokens of a continued beginning."""

Data = Samples | str | list[Tensor]


def main() -> None:
    """Prunes on every kind of tokens and writes down what the network is left with."""
    name_missing_operators()
    shared = shared_folder()
    folder = shared / "weights" / "stories260k"
    kind = transformers.LlamaForCausalLM
    dense = kind.from_pretrained(folder, use_safetensors=True).eval()
    tokenizer = Tokenizer(folder / "tok512.bin")
    stories = np.load(shared / "data" / "tinystories" / "tokens.npz")
    calibration, held_out = (
        torch.from_numpy(stories[name].astype(np.int64)) for name in ("calibration", "development")
    )
    manual = torch.tensor(tokenizer.encode(_prose()))
    found = _measured(dense, calibration, manual, held_out)
    _write(found, dense, tokenizer, held_out)


Found = dict[tuple[str, object, str], list[float]]
"""What was pruned, by how much, and what was seen → perplexities by seed."""


def _measured(dense: nn.Module, calibration: Tensor, manual: Tensor, held_out: Tensor) -> Found:
    found: Found = {}
    for seed in SEEDS:
        seen: dict[str, Data] = {
            "written by the network": Written().make(dense, _example(), seed),
            "text of the domain": [_rows(calibration, seed)],
        }
        if seed in FEW:
            seen["uniform tokens"] = "synthetic"
            seen["another domain's text"] = [_rows(manual, seed)]
        for (part, pattern, ratio), (name, data) in itertools.product(CUTS, seen.items()):
            pruned = _pruned(dense, data, seed, ratio={pattern: ratio})
            found.setdefault((part, ratio, name), []).append(_perplexity(pruned, held_out))
            print(part, ratio, name, seed, found[part, ratio, name][-1], flush=True)
        for name in ("written by the network", "text of the domain"):
            pruned = _pruned(dense, seen[name], seed, target=TARGET)
            found.setdefault((TARGET, "", name), []).append(_perplexity(pruned, held_out))
    return found


def _write(found: Found, dense: nn.Module, tokenizer: Tokenizer, held_out: Tensor) -> None:
    rows = []
    for (part, share, name), values in found.items():
        text = float(np.mean(found[part, share, "text of the domain"]))
        more = 100 * (float(np.mean(values)) / text - 1)
        figures: list[object] = [round(value, 3) for value in (float(np.mean(values)), *values)]
        figures += [""] * (1 + len(SEEDS) - len(figures))
        rows.append([part, share, name, *figures, round(more, 1)])
    shorter = _pruned(dense, None, 0, ratio={MLP: 0.2})
    record(
        "stories",
        rows,
        [
            *("pruned", "ratio", "seen", "perplexity, mean"),
            *(f"seed {seed}" for seed in SEEDS),
            "% above text of the domain",
        ],
        dense=round(_perplexity(dense, held_out), 3),
        perplexity=f"over windows of {LENGTH} tokens of {len(held_out):,} held-out ones",
        seen=f"{ROWS} rows of {LENGTH} tokens; uniform ones: as many as are affordable",
        texts=[
            {
                "dense": tokenizer.decode(_continued(dense, tokenizer, words)),
                "without 20 % of the units": tokenizer.decode(
                    _continued(shorter, tokenizer, words)
                ),
            }
            for words in BEGINNINGS
        ],
        threads=torch.get_num_threads(),
    )


def _example() -> Tensor:
    return torch.zeros(1, LENGTH, dtype=torch.int64)


def _pruned(
    dense: nn.Module,
    data: Data | None,
    seed: int,
    ratio: dict[str, float] | None = None,
    target: str | None = None,
) -> nn.Module:
    pruned = bequest.prune(
        dense,
        _example(),
        ratio,
        target=target,
        criterion="obs",
        data=data,
        round_to=1,
        seed=seed,
        progress=False,
    )
    return pruned.model


def _perplexity(model: nn.Module, tokens: Tensor) -> float:
    return bequest.perplexity(model, tokens, window=LENGTH).perplexity


def _rows(tokens: Tensor, seed: int) -> Tensor:
    """Windows drawn by the seed, (ROWS, LENGTH)."""
    windows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    return windows[
        torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))[:ROWS]
    ]


def _prose() -> str:
    """Sentences of Python's manual."""
    text = re.sub(r"\s+", " ", " ".join(topics[name] for name in sorted(topics)))
    return " ".join(re.findall(r"[A-Z][^.!?=<>|\[\]{}_*`]{30,}[.!?]", text))


@torch.no_grad()
def _continued(model: nn.Module, tokenizer: Tokenizer, words: str) -> list[int]:
    """A beginning and what the network writes behind it, the likeliest token each time."""
    tokens = torch.tensor([[1, *tokenizer.encode(words)]])
    for _ in range(SHOWN):
        logits = model(tokens)
        logits = getattr(logits, "logits", logits)
        tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], 1)
    return tokens[0].tolist()


if __name__ == "__main__":
    main()

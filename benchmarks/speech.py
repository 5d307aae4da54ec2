"""What is a recurrent tagger worth without a share of its hidden units?

Two bidirectional LSTM layers tell which tokens of a children's story are spoken by somebody: the
quotation marks have been taken out of the text (TinyStories, ``../shared``), so that only words and
their context tell. The tagger is trained here on the one half of the stories, pruned plainly and
restored, in weight space, by regression without data and by regression on 64 rows of the training
text; what counts is how many tokens of the other stories it tags as the text has them.

The weights go to ``benchmarks/weights/speech.safetensors``, which git ignores: four minutes on one
core. ``benchmarks/speech.py:tagger`` is the network for ``bequest prune``.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import bequest
from benchmarks.record import record, shared_folder
from benchmarks.tok512 import Tokenizer

WEIGHTS = Path(__file__).parent / "weights" / "speech.safetensors"
MARK = '"'
START = 1
"""The token that begins a story."""
LENGTH = 64
"""Tokens of a row."""
EPOCHS, BATCH, RATE = 6, 32, 4e-3
CALIBRATED = 64
SEED = 0


class Tagger(nn.Module):
    """Tokens (b, t) → logits (b, t, 2): told by the story, spoken in it."""

    def __init__(self, tokens: int = 512, width: int = 64, hidden: int = 96) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.lstm = nn.LSTM(width, hidden, 2, batch_first=True, bidirectional=True)
        self.between = nn.Linear(2 * hidden, hidden)
        self.last = nn.Linear(hidden, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits of every token."""
        states, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.last(torch.relu(self.between(states)))
        return logits


def tagger() -> Tagger:
    """The network of this benchmark, in evaluation mode, with random weights."""
    return Tagger().eval()


def texts() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Tokens and tags (rows, LENGTH) to train on, and those of other stories."""
    shared = shared_folder()
    path = shared / "data" / "tinystories" / "tokens.npz"
    if not path.is_file():
        raise SystemExit(f"no {path}")
    tokenizer = Tokenizer(shared / "weights" / "stories260k" / "tok512.bin")
    with np.load(path, allow_pickle=False) as file:
        seen, unseen = (file[name].tolist() for name in ("calibration", "development"))
    return _tagged(seen, tokenizer), _tagged(unseen, tokenizer)


def _tagged(tokens: list[int], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Rows of the text without its quotation marks, and whether each token stood between them."""
    found: list[tuple[int, int]] = []
    beginnings = [place for place, token in enumerate(tokens) if token == START]
    for begin, end in zip(beginnings, [*beginnings[1:], len(tokens)], strict=True):
        parts = tokenizer.decode(tokens[begin:end]).split(MARK)
        spoken = np.repeat(np.arange(len(parts)) % 2, [len(part.encode()) for part in parts])
        found.append((START, 0))
        place = -1  # the tokenizer puts a space before the text
        for token in tokenizer.encode("".join(parts)):
            place += tokenizer.length(token)
            found.append((token, int(spoken[place - 1])))
    rows = torch.tensor(found)[: len(found) // LENGTH * LENGTH].view(-1, LENGTH, 2)
    return rows[..., 0].contiguous(), rows[..., 1].contiguous()


def train(rows: Tensor, tags: Tensor) -> None:
    """Trains the tagger with AdamW over one cycle of the learning rate and keeps the last step."""
    torch.manual_seed(SEED)
    network = Tagger().train()
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    steps = len(rows) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, EPOCHS * steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for chosen in torch.split(torch.randperm(len(rows))[: steps * BATCH], BATCH):
            loss = cross_entropy(network(rows[chosen]).flatten(0, 1), tags[chosen].flatten())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / steps:.4f}", flush=True)
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_file(dict(network.state_dict()), WEIGHTS)


@torch.no_grad()
def scores(model: nn.Module, rows: Tensor, tags: Tensor) -> tuple[float, float]:
    """Tokens that are tagged as the text has them, and F1 of the spoken ones; percent."""
    told = torch.cat([model(x).argmax(-1) for x in torch.split(rows, 64)])
    right = int(((told == 1) & (tags == 1)).sum())
    f1 = 2 * right / max(1, int((told == 1).sum() + (tags == 1).sum()))
    return 100 * float((told == tags).float().mean()), 100 * f1


def main() -> None:
    """Prunes by every way and writes down what is left."""
    (seen, tags), (unseen, expected) = texts()
    if not WEIGHTS.is_file():
        train(seen, tags)
    dense = tagger()
    dense.load_state_dict(load_file(WEIGHTS))
    drawn = torch.randperm(len(seen), generator=torch.Generator().manual_seed(SEED))
    calibration = seen[drawn[:CALIBRATED]]
    ways = [
        ("none", "nothing", None),
        ("lbyl", "nothing", None),
        ("regression", "nothing", None),
        ("regression", f"{CALIBRATED} rows of text", list(torch.split(calibration, 16))),
    ]
    rows: list[list[object]] = [
        ["dense", "", "", *scores(dense, unseen, expected), 1.0, ""],
        ["always told", "", "", 100 * float((expected == 0).float().mean()), 0.0, "", ""],
    ]
    for ratio in (0.3, 0.5):
        for restorer, knows, data in ways:
            start = time.process_time()
            pruned = bequest.prune(
                dense,
                calibration[:1],
                {"lstm*": ratio},
                criterion="l2",
                restorer=restorer,
                data=data,
                seed=SEED,
                progress=False,
            )
            seconds = round(time.process_time() - start, 1)
            left = pruned.report.after.params / pruned.report.before.params
            found = scores(pruned.model, unseen, expected)
            rows.append([ratio, restorer, knows, *found, left, seconds])
            print(*rows[-1], flush=True)
    record(
        "speech",
        rows,
        ["ratio", "restorer", "knows", "accuracy", "F1", "params", "CPU seconds"],
        F1="of spoken tokens, percent",
        accuracy=f"percent of {expected.numel():,} tokens of stories that nothing was learnt from",
        training=f"{EPOCHS} epochs over {seen.numel():,} tokens",
        seed=SEED,
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()

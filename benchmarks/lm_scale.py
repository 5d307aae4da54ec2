"""What does it take to prune and refit a language model, and how does that grow with its size?

    python -m benchmarks.lm_scale [MILLIONS ...]

Llamas of random weights in single precision lose 30 % of their MLP units; 32 rows of 128 tokens.
Each is measured in a process of its own; the peak of the resident memory counts from the moment
when the model is loaded, in sizes of the model.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from tests.timm_support import name_missing_operators

import bequest
from benchmarks.record import record

SIZES = {22: (384, 1024, 6), 113: (768, 2176, 12), 326: (1024, 2784, 23)}
"""Millions of parameters → hidden size, intermediate size, layers."""
WORDS, ROWS, LENGTH = 16_000, 32, 128


def main() -> None:
    """Starts the processes that are measured, and writes what they tell."""
    rows = []
    for millions in map(int, sys.argv[1:] or SIZES):
        command = [sys.executable, "-m", "benchmarks.lm_scale", "measured", str(millions)]
        told = subprocess.check_output(command, text=True).splitlines()[-1]
        rows.append([float(one) for one in told.split()])
        print(*rows[-1], flush=True)
    record(
        "lm_scale",
        rows,
        ["M parameters", "CPU [s]", "s", "CPU [s] per M", "peak over the model [sizes]"],
        title="Llamas of random weights, 30 % of MLP units, 32 rows of 128 tokens",
        threads=torch.get_num_threads(),
        must_hold="326 M: under 100 CPU s, peak below 2.2 model sizes",
        seed=0,
    )


def measured(millions: int) -> None:
    """Prints a row of the table."""
    name_missing_operators()
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, intermediate, layers = SIZES[millions]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            num_key_value_heads=hidden // 64,
        )
    ).eval()
    count = sum(parameter.numel() for parameter in model.parameters())
    tokens = torch.randint(WORDS, (ROWS, LENGTH))
    before = resident()
    cpu, wall = time.process_time(), time.perf_counter()
    bequest.prune(
        model,
        {"input_ids": tokens[:1]},
        {"*mlp*": 0.3},
        data=[{"input_ids": tokens}],
        restorer=bequest.restorers.Regression(refine=0),
        progress=False,
    )
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(count / 1e6, cpu, wall, cpu / count * 1e6, (peak - before) / (4 * count))


def resident() -> int:
    """Bytes of memory that the process holds now."""
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    measured(int(sys.argv[2])) if sys.argv[1:2] == ["measured"] else main()

"""What does it take to prune and refit a language model, and how does that grow with its size?

    python -m benchmarks.lm_scale [MILLIONS ...]

Llamas of random weights lose 30 % of their MLP units; 32 rows of 128 tokens, closed form. Each is
measured in a process of its own, in single precision, and the largest in bfloat16 alone. Once the
model is made in memory: the peak of the resident memory counts from the moment when it is there, in
sizes of the model. Once it is loaded from a folder and saved to another: the peak counts from the
moment before it is loaded, the model included.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tests.timm_support import name_missing_operators

import bequest
from benchmarks.record import record

SIZES = {
    22: (384, 1024, 6),
    113: (768, 2176, 12),
    326: (1024, 2784, 23),
    1100: (2048, 5632, 20),
}
"""Millions of parameters → hidden size, intermediate size, layers."""
HALF = frozenset({1100})
"""Those in bfloat16."""
WORDS, ROWS, LENGTH = 16_000, 32, 128


def main() -> None:
    """Starts the processes that are measured, and writes what they tell."""
    rows = []
    for millions in map(int, sys.argv[1:] or SIZES):
        with tempfile.TemporaryDirectory() as folder:
            memory = told("memory", millions, folder) if millions not in HALF else None
            told("written", millions, folder)
            count, cpu, wall, peak = told("folder", millions, folder)
        cpu = cpu if memory is None else memory[1]
        row = [count / 1e6, "bfloat16" if millions in HALF else "float32", cpu, wall]
        row += [cpu / count * 1e6, "" if memory is None else memory[3], peak]
        rows.append(row)
        print(*rows[-1], flush=True)
    record(
        "lm_scale",
        rows,
        [
            *("M parameters", "type", "CPU [s]", "s by folder", "CPU [s] per M"),
            *("peak over the model [sizes]", "peak by folder, model included [sizes]"),
        ],
        title="Llamas of random weights, 30 % of MLP units, 32 rows of 128 tokens",
        threads=torch.get_num_threads(),
        must_hold="326 M: under 100 CPU s, peaks below 2.2 and 1.3 model sizes",
        seed=0,
    )


def told(way: str, millions: int, folder: str) -> list[float]:
    """What a process of its own measures."""
    command = [sys.executable, "-m", "benchmarks.lm_scale", way, str(millions), folder]
    lines = subprocess.check_output(command, text=True).splitlines()
    return [float(one) for one in lines[-1].split()] if way != "written" else []


def made(millions: int) -> Any:
    """The model, with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, intermediate, layers = SIZES[millions]
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            num_key_value_heads=hidden // 64,
        )
    ).eval()


def measured(way: str, millions: int, folder: str) -> None:
    """Prints parameters, CPU seconds, seconds and the peak in sizes of the model."""
    name_missing_operators()
    from transformers import AutoModelForCausalLM

    if way == "written":
        kind = torch.bfloat16 if millions in HALF else torch.float32
        made(millions).to(kind).save_pretrained(Path(folder, "dense"))
        return
    model: Any = made(millions) if way == "memory" else None
    before = resident()
    cpu, wall = time.process_time(), time.perf_counter()
    if model is None:
        model = AutoModelForCausalLM.from_pretrained(Path(folder, "dense")).eval()
    tokens = torch.randint(WORDS, (ROWS, LENGTH))
    pruned = bequest.prune(
        model,
        {"input_ids": tokens[:1]},
        {"*mlp*": 0.3},
        criterion="l2",
        data=[{"input_ids": tokens}],
        restorer=bequest.restorers.Regression(refine=0),
        progress=False,
    )
    if way == "folder":
        pruned.save_pretrained(Path(folder, "pruned"))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    parameters = list(model.parameters())
    size = sum(parameter.nbytes for parameter in parameters)
    print(sum(parameter.numel() for parameter in parameters), cpu, wall, peak / size)


def resident() -> int:
    """Bytes of memory that the process holds now."""
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("memory", "written", "folder"):
        measured(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        main()

"""Two processes on the CPU do what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import dataclasses, json, sys
import torch
from torch import nn
import bequest
from bequest.hypersphere import Recipe, train

archive, out, devices = sys.argv[1:]
torch.set_num_threads(1)
images = bequest.data.open_images(
    archive, mean=(0.4,) * 3, std=(0.25,) * 3, size=(3, 6, 6), batch_size=32
)
torch.manual_seed(0)
# Batch norm would see another batch in every process.
model = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
)
recipe = Recipe(epochs=3, batch_size=32, lr=0.05)
done = train(model, images, recipe, out + "/run", devices=int(devices), validation=images)
if done.is_main:
    weights = [p.detach().double().flatten().tolist() for p in done.model.parameters()]
    history = [dataclasses.asdict(record) for record in done.history]
    with open(out + "/result.json", "w") as file:
        json.dump({"weights": weights, "history": history}, file)
"""


def run(script, archive, out, launcher, devices):
    out.mkdir()
    package = Path(__file__).resolve().parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, script, archive, out, devices]
    done = subprocess.run(
        [str(word) for word in command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "result.json").read_text())


def test_two_processes_give_the_loss_curve_of_one(archive, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    one = run(script, archive, tmp_path / "one", [], 1)
    two = run(script, archive, tmp_path / "two", torchrun, 2)
    for name in ("loss", "penalty", "top1"):
        expected = [record[name] for record in one["history"]]
        assert [record[name] for record in two["history"]] == pytest.approx(expected, rel=1e-4)
    for ours, theirs in zip(one["weights"], two["weights"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-4)
    assert (tmp_path / "two" / "run" / "log.jsonl").read_text().count("\n") == 3

"""What does Torch-Pruning leave of the same networks, and how long does it plan?

Both remove half of the channels of every prunable group, residual streams too, ranked by the norm
of their filters, with nothing fine-tuned: Torch-Pruning (PyPI: torch-pruning) as its README does,
`MetaPruner` with `GroupMagnitudeImportance(p=2)` and the classifier left alone, one step. Time is
that of one call, from the model to the smaller one. Accuracy is right after it, on CIFAR-10 test
images 5,000 to 6,999, where the weights are there. Networks without weights are timed as made.
"""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import bequest
from benchmarks.record import record
from benchmarks.subjects import subject
from bequest.measure import cost

RATIO = 0.5
NETWORKS = ("resnet56", "resnet50", "mobilenetv2")


def main() -> None:
    """Prunes each network by each library and writes results/peers.{json,md}."""
    if importlib.util.find_spec("torch_pruning") is None:
        print("skipped: torch-pruning isn't installed; pip install torch-pruning")
        return
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    for name in NETWORKS:
        model, example, images = _opened(name)
        before = cost(model, example)
        for who, prune in WAYS.items():
            if images is None and "regression" in who:
                continue  # without weights there is nothing that it could restore
            start = time.perf_counter()
            try:
                pruned = prune(model, example)
            except Exception as error:  # another library's own
                rows.append([name, who, "", "", "", f"{type(error).__name__}: {error}"[:80]])
                continue
            seconds = time.perf_counter() - start
            after = cost(pruned, example)
            top1 = "" if images is None else round(bequest.evaluate(pruned, images).top1, 2)
            shares = (after.params / before.params, after.macs / before.macs)
            rows.append([name, who, round(seconds, 2), *(round(x, 3) for x in shares), top1])
            print(*rows[-1], flush=True)
    record(
        "peers",
        rows,
        ["network", "by", "seconds", "params left", "MACs left", "top-1 right after"],
        ratio=RATIO,
        pruned="all groups, residual streams too, but the classifier; widths to the channel",
        images="CIFAR-10 test, 5,000 to 6,999 (ResNet-56); the others have random weights",
        threads=1,
        seed=0,
        torch_pruning=_version(),
    )


def _opened(name: str) -> tuple[nn.Module, torch.Tensor, Any]:
    """A network, one input, and images where it is trained."""
    torch.manual_seed(0)
    if name == "resnet56":
        data, weights = "cifar10/test.npz", "resnet56_cifar10.safetensors"
        model, entry, images = subject(name, weights, data, offset=5000, limit=2000)
        return model, torch.zeros(1, *entry.input_shape), images
    entry = bequest.zoo.entry(name)
    return bequest.zoo.create(name).eval(), torch.zeros(1, *entry.input_shape), None


def torch_pruning(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """As its README does; it changes the model that it is given, hence the copy."""
    import torch_pruning as tp

    model = copy.deepcopy(model)
    last = [one for one in model.modules() if isinstance(one, nn.Linear)][-1]
    pruner = tp.pruner.MetaPruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=[last],
    )
    pruner.step()
    return model


def ours(restorer: Any) -> Callable[[nn.Module, torch.Tensor], nn.Module]:
    """The same groups by bequest."""

    def prune(model: nn.Module, example: torch.Tensor) -> nn.Module:
        found = bequest.prune(
            model,
            example,
            RATIO,
            groups="all",
            criterion="l2",
            restorer=restorer,
            round_to=1,
            progress=False,
        )
        return found.model

    return prune


WAYS = {
    "torch-pruning": torch_pruning,
    "bequest, none": ours("none"),
    "bequest, folding": ours("folding"),
    "bequest, regression (closed form)": ours(bequest.restorers.Regression(refine=0)),
}


def _version() -> str:
    import torch_pruning as tp

    return str(tp.__version__)


if __name__ == "__main__":
    main()

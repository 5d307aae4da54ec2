"""How far from the dense network is each block of a pruned ResNet-56, restorer by restorer?

Relative error of every block's output, ‖dense − pruned‖ / ‖dense − mean‖ over 500 test images
(0 to 499), half of the inner channels gone by l1. Draws docs/assets/layer-errors.svg. Needs the
real weights and images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import bequest
from benchmarks.record import record
from benchmarks.subjects import subject

RATIO = 0.5
RESTORERS = {"none": "#777777", "lbyl": "#0072b2", "regression": "#009e73"}
PICTURE = Path(__file__).resolve().parents[1] / "docs/assets/layer-errors.svg"


def main() -> None:
    """Measures, writes results/layer_errors.{json,md} and draws."""
    model, entry, images = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", limit=500
    )
    example = torch.zeros(1, *entry.input_shape)
    inputs = torch.cat([x for x, _ in images])
    blocks = [name for name, _ in model.named_modules() if name.count(".") == 1 and "layer" in name]
    dense = outputs(model, blocks, inputs)
    errors: dict[str, list[float]] = {}
    for restorer in RESTORERS:
        pruned = bequest.prune(
            model, example, RATIO, criterion="l1", restorer=restorer, round_to=1
        ).model
        pairs = zip(dense, outputs(pruned, blocks, inputs), strict=True)
        errors[restorer] = [relative(*pair) for pair in pairs]
    columns = [[round(value, 4) for value in held] for held in errors.values()]
    rows = [[name, *values] for name, *values in zip(blocks, *columns, strict=True)]
    record(
        "layer_errors",
        rows,
        ["block", *RESTORERS],
        seed=0,
        ratio=RATIO,
        criterion="l1",
        images="CIFAR-10 test, 0 to 499",
    )
    draw(blocks, errors)


def outputs(model: nn.Module, blocks: list[str], inputs: Tensor) -> list[Tensor]:
    """What each block writes for the inputs."""
    with caught(model, blocks) as found, torch.no_grad():
        model(inputs)
    return found


@contextmanager
def caught(model: nn.Module, blocks: list[str]) -> Iterator[list[Tensor]]:
    """The blocks' outputs, in order, as the model runs."""
    found: list[Tensor] = []
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda m, args, y: found.append(y))
        for name in blocks
    ]
    yield found
    for hook in hooks:
        hook.remove()


def relative(dense: Tensor, pruned: Tensor) -> float:
    """‖dense − pruned‖ / ‖dense − its mean per channel‖."""
    spread = dense - dense.mean([d for d in range(dense.ndim) if d != 1], keepdim=True)
    return float(torch.linalg.vector_norm(dense - pruned) / torch.linalg.vector_norm(spread))


def draw(blocks: list[str], errors: dict[str, list[float]]) -> None:
    """One curve per restorer over the depth of the network."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bequest"
    figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    for restorer, colour in RESTORERS.items():
        axes.plot(range(len(blocks)), errors[restorer], color=colour, lw=2, label=restorer)
    axes.set_xticks(range(0, len(blocks), 3), blocks[::3], fontsize=8)
    axes.set_ylabel("relative error of the block's output")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None}, facecolor="white")
    print(PICTURE)


if __name__ == "__main__":
    main()

"""How much of a small vision transformer stays whose MLPs and heads are pruned, without data?

A ViT of transformers (patches of 4 × 4, width 64, 4 layers of 4 heads, MLPs of 128) is trained on
Fashion-MNIST for ``EPOCHS`` epochs, seed 0; its weights go to ``benchmarks/weights/``, which git
ignores. All inner groups, hidden units and heads, then lose 30 and 50 %: with nothing handed on, by
the closed form, and in the default call; the last one again with 256 training images. Nothing was
developed on this network. Reported on test images 5,000 to 9,999. Needs the images in
``$BEQUEST_SHARED``.

    python -m benchmarks.vit_fashion
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.timm_support import name_missing_operators
from torch import nn
from torch.nn.functional import cross_entropy

import bequest
from benchmarks.record import record, shared_folder
from benchmarks.train_reference import WEIGHTS
from bequest.data import ImageLoader
from bequest.restorers import Regression

EPOCHS, BATCH, RATE, REAL = 4, 128, 2e-3, 256
RATIOS = (0.3, 0.5)
CALLS: dict[str, dict[str, Any]] = {
    "none": {"restorer": "none"},
    "regression, closed form": {"restorer": Regression(refine=0)},
    "default call": {},
    f"default call, {REAL} real images": {},
}


def main() -> None:
    """Trains where there are no weights yet, measures, and writes results/vit_fashion.{json,md}."""
    model, test = trained(), images("test.npz", offset=5000, limit=5000)
    dense = bequest.evaluate(model, test).top1
    rows = []
    for ratio in RATIOS:
        row: list[object] = [ratio]
        for name, call in CALLS.items():
            data = images("train.npz", limit=REAL) if "real" in name else None
            example = torch.zeros(1, 1, 28, 28)
            pruned = bequest.prune(model, example, ratio, data=data, round_to=1, **call)
            row.append(round(bequest.evaluate(pruned.model, test).top1, 2))
        before, after = pruned.report.before, pruned.report.after
        row += [round(after.params / before.params, 3), round(after.macs / before.macs, 3)]
        rows.append(row)
        print(*row, flush=True)
    record(
        "vit_fashion",
        rows,
        ["ratio", *CALLS, "params kept", "MACs kept"],
        seed=0,
        dense=round(dense, 2),
        images="Fashion-MNIST test, 5,000 to 9,999",
        pruned="hidden units of MLPs and heads, round_to=1",
    )


def network() -> nn.Module:
    """Random weights, seed 0."""
    name_missing_operators()
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"image_size": 28, "patch_size": 4, "num_channels": 1, "num_labels": 10}
    widths = {"hidden_size": 64, "intermediate_size": 128}
    depths = {"num_hidden_layers": 4, "num_attention_heads": 4}
    model: nn.Module = ViTForImageClassification(ViTConfig(**sizes, **widths, **depths))
    return model


def images(file: str, *, offset: int = 0, limit: int | None = None) -> ImageLoader:
    """Pixels from −1 to 1, as ViT's processors give them."""
    return bequest.data.open_images(
        shared_folder() / "data/fashion_mnist" / file,
        mean=(0.5,),
        std=(0.5,),
        size=(1, 28, 28),
        batch_size=500,
        offset=offset,
        limit=limit,
    )


def trained() -> nn.Module:
    """From its file, or trained by AdamW with one cycle of the learning rate and mirror images."""
    model, file = network(), WEIGHTS / "vit-fashion.safetensors"
    if file.exists():
        model.load_state_dict(load_file(file))
        return model.eval()
    x, y = (torch.cat(parts) for parts in zip(*images("train.npz"), strict=True))
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps * EPOCHS)
    model.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.split(torch.randperm(len(x))[: steps * BATCH], BATCH):
            flipped = torch.rand(BATCH, 1, 1, 1) < 0.5
            loss = cross_entropy(
                model(torch.where(flipped, x[batch].flip(3), x[batch])).logits, y[batch]
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / steps:.4f}", flush=True)
    WEIGHTS.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)
    return model.eval()


if __name__ == "__main__":
    main()

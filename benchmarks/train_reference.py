"""Trains the reference networks that no public checkpoint is at hand for, on CIFAR-10.

``python -m benchmarks.train_reference NAME [--epochs N] [--transfer]`` with NAME of the zoo
(``vgg16-cifar``, ``mobilenetv2-cifar``). The recipe: random crops of the images padded by 4 pixels
and mirror images, SGD with Nesterov momentum 0.9 and weight decay 5e-4, one cycle of the learning
rate, bfloat16 arithmetic where the processor has it, seed 0. With ``--transfer`` the MobileNetV2
starts from the real ImageNet weights, all but those of the last layer, and five epochs are enough.
The weights go to ``benchmarks/weights/NAME.safetensors``, which git ignores; the last epoch is the
one that is kept, none is chosen by its accuracy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import bequest
from benchmarks.mobilenetv2_imagenet import features
from benchmarks.record import shared_folder

WEIGHTS = Path(__file__).parent / "weights"
BATCH, RATE, MOMENTUM, DECAY, PAD = 128, 0.1, 0.9, 5e-4, 4
EXTRA = "blocks.0.expand"


def weights(name: str) -> Path:
    """The trained weights of a reference network; an explanation when they aren't there."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise SystemExit(f"no {path}; run: python -m benchmarks.train_reference {name}")
    return path


def train(name: str, epochs: int, transfer: bool) -> None:
    """Trains a network of the zoo; picks up after the last whole epoch of an interrupted run."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = _images(name)
    torch.manual_seed(0)
    network = bequest.zoo.create(name)
    if transfer:
        _start_from_imagenet(network)
    network.to(device).train()
    # Without instructions for it, bfloat16 takes ten times as long as single precision.
    half = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    optimiser = torch.optim.SGD(
        network.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps * epochs)
    begin = _resume(name, network, optimiser, schedule)
    for epoch in range(begin, epochs):
        torch.manual_seed(epoch)
        total = 0.0
        order = torch.randperm(len(images))[: steps * BATCH]
        for batch in torch.split(order, BATCH):
            x, y = _augmented(images[batch]).to(device), labels[batch].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                logits = network(x)
            loss = cross_entropy(logits.float(), y)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"{name} epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}", flush=True)
        _keep(name, epoch + 1, network, optimiser, schedule)
    WEIGHTS.joinpath(f"{name}.safetensors.part").rename(WEIGHTS / f"{name}.safetensors")


def _start_from_imagenet(network: nn.Module) -> None:
    """Gives a MobileNetV2 the layers of the real ImageNet one, which stand in the same order.

    That one's first block has a layer in front that this one's lacks.
    """
    given = (one for name, one in features().named_modules() if not name.startswith(EXTRA))
    layers = [one for one in given if isinstance(one, nn.Conv2d | nn.BatchNorm2d)]
    own = [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.BatchNorm2d)]
    for one, other in zip(own, layers, strict=True):
        one.load_state_dict(other.state_dict())


def _images(name: str) -> tuple[Tensor, Tensor]:
    """All training images, normalised, (N, 3, 32, 32), and their labels (N,)."""
    with np.load(shared_folder() / "data/cifar10/train-0.npz", allow_pickle=False) as file:
        pixels, labels = file["x"], file["y"]
    return bequest.zoo.entry(name).preprocessing.normalise(pixels), torch.from_numpy(labels)


def _augmented(images: Tensor) -> Tensor:
    """A random crop of each padded image, half of them mirrored."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (PAD,) * 4)
    rows = torch.randint(2 * PAD + 1, (count, 1)) + torch.arange(height)
    columns = torch.randint(2 * PAD + 1, (count, 1)) + torch.arange(width)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    batch = torch.arange(count)[:, None, None]
    # Advanced indices on both sides of the channels put those last.
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _keep(name: str, epoch: int, network: nn.Module, *states: object) -> None:
    WEIGHTS.mkdir(exist_ok=True)
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, WEIGHTS / f"{name}.safetensors.part")
    progress = [epoch, *(state.state_dict() for state in states)]  # type: ignore[attr-defined]
    torch.save(progress, WEIGHTS / f"{name}.progress")


def _resume(name: str, network: nn.Module, *states: object) -> int:
    """The epochs that are done, 0 when none is."""
    path = WEIGHTS / f"{name}.progress"
    if not path.is_file():
        return 0
    epoch, *saved = torch.load(path, weights_only=True)
    network.load_state_dict(load_file(WEIGHTS / f"{name}.safetensors.part"))
    for state, value in zip(states, saved, strict=True):
        state.load_state_dict(value)  # type: ignore[attr-defined]
    return int(epoch)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--transfer", action="store_true", help="from ImageNet (MobileNetV2)")
    arguments = parser.parse_args()
    train(arguments.name, arguments.epochs, arguments.transfer)


if __name__ == "__main__":
    main()

"""What is a segmenter worth that was pruned without its training data, and with a few images?

A small U-Net (batch norms, skip concatenations, nearest upsampling) is trained here on discs,
squares, triangles and rings that are drawn over crops of real pictures (``../shared``), filled with
a colour or with another picture. It is pruned plainly and restored, without data and with 64 such
images; what counts is the mean intersection over union of the five classes on images drawn over
other pictures, which neither training nor calibration has seen.

The weights go to ``benchmarks/weights/shapes.safetensors``, which git ignores: six minutes on one
core. ``benchmarks/shapes.py:unet`` is the network for ``bequest prune``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, max_pool2d

import bequest
from benchmarks.record import record, shared_folder
from bequest.restorers import LBYL, Plain, Regression
from bequest.restorers.base import Restorer

WEIGHTS = Path(__file__).parent / "weights" / "shapes.safetensors"
CLASSES = ("background", "disc", "square", "triangle", "ring")
SIZE = 64
"""Height and width of an image."""
STEPS, BATCH, RATE = 600, 32, 4e-3
TRAINED_ON = 350
"""Pictures that training and calibration draw over; the others are for evaluation."""
EVALUATED, CALIBRATED = 200, 64
SEED = 0

Pixels = NDArray[Any]


class Block(nn.Sequential):
    """Two convolutions, each with a batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class UNet(nn.Module):
    """Images (b, 3, h, w), h and w multiples of 8 → logits (b, classes, h, w)."""

    def __init__(self, width: int = 16, levels: int = 3) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(map(Block, [3, *widths[:-1]], widths))
        self.up = nn.ModuleList(
            Block(below + own, own)
            for own, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.last = nn.Conv2d(width, len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of every pixel."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else max_pool2d(x, 2))
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([interpolate(x, scale_factor=2.0), skip], 1))
        logits: Tensor = self.last(x)
        return logits


def unet() -> UNet:
    """The network of this benchmark, in evaluation mode, with random weights."""
    return UNet().eval()


@dataclass(frozen=True)
class Scenes:
    """Draws shapes over pictures.

    Attributes:
        pictures: uint8 (n, h, w, 3).
    """

    pictures: Pixels

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Images (count, 3, SIZE, SIZE) about zero, and classes, int64 (count, SIZE, SIZE)."""
        scenes = [self._scene(generator) for _ in range(count)]
        images, labels = (np.stack(each) for each in zip(*scenes, strict=True))
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        return (pixels / 64 - 2).contiguous(), torch.from_numpy(labels)

    def _scene(self, generator: np.random.Generator) -> tuple[Pixels, Pixels]:
        image, label = self._crop(generator), np.zeros((SIZE, SIZE), np.int64)
        for _ in range(generator.integers(1, 4)):
            kind = generator.integers(1, len(CLASSES))
            inside = _shape(CLASSES[kind], generator)
            colour = generator.uniform(0, 255, 3).astype(np.float32)
            fill = self._crop(generator) if generator.random() < 0.5 else colour
            strength = generator.uniform(0.6, 1)
            image = np.where(inside[..., None], strength * fill + (1 - strength) * image, image)
            label[inside] = kind
        return image.astype(np.float32), label

    def _crop(self, generator: np.random.Generator) -> Pixels:
        picture = self.pictures[generator.integers(len(self.pictures))]
        top, left = (generator.integers(0, side - SIZE + 1) for side in picture.shape[:2])
        crop: Pixels = picture[top : top + SIZE, left : left + SIZE].astype(np.float32)
        return crop[:, ::-1] if generator.random() < 0.5 else crop


def _shape(name: str, generator: np.random.Generator) -> Pixels:
    """The pixels of a shape of any place, size and turn, bool (SIZE, SIZE)."""
    size, turn = generator.uniform(7, 18), generator.uniform(0, 2 * np.pi)
    centre = generator.uniform(8, SIZE - 8, 2)
    y, x = np.mgrid[:SIZE, :SIZE] - centre[:, None, None]
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    radius = np.hypot(x, y)
    inside: dict[str, Pixels] = {
        "disc": radius < size,
        "square": np.maximum(abs(u), abs(v)) < 0.8 * size,
        "triangle": np.maximum(v, abs(u) * 3**0.5 / 2 - v / 2) < 0.65 * size,
        "ring": (radius < size) & (radius > 0.55 * size),
    }
    return inside[name]


def pictures() -> tuple[Scenes, Scenes]:
    """Those of training and calibration, and those of evaluation, which have none in common."""
    files = sorted((shared_folder() / "data" / "imagenet_samples").glob("*/*"))
    if len(files) <= TRAINED_ON:
        raise SystemExit(f"expected over {TRAINED_ON} pictures in data/imagenet_samples")
    order = np.random.default_rng(SEED).permutation(len(files))
    # Half the size, so that a crop shows more than a texture.
    held = np.stack(
        [np.asarray(Image.open(files[i]).convert("RGB").resize((112, 112))) for i in order]
    )
    return Scenes(held[:TRAINED_ON]), Scenes(held[TRAINED_ON:])


def train(scenes: Scenes) -> None:
    """Trains the network with AdamW over one cycle of the learning rate and keeps the last step."""
    torch.manual_seed(SEED)
    generator = np.random.default_rng(SEED)
    network = UNet().train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
    for step in range(STEPS):
        images, labels = scenes.draw(BATCH, generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images.to(memory_format=torch.channels_last))
        loss = cross_entropy(logits.float(), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1}/{STEPS}: loss {loss.item():.4f}", flush=True)
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, WEIGHTS)


@torch.no_grad()
def mean_iou(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Mean over the classes of intersection over union, over all pixels of all images; percent."""
    count = len(CLASSES)
    table = torch.zeros(count, count)
    for x, y in zip(torch.split(images, 50), torch.split(labels, 50), strict=True):
        pairs = y * count + model(x).argmax(1)
        table += torch.bincount(pairs.flatten(), minlength=count**2).view(count, count)
    both = table.diagonal()
    return float((100 * both / (table.sum(0) + table.sum(1) - both)).mean())


def main() -> None:
    """Prunes by every way and writes down what is left."""
    seen, unseen = pictures()
    if not WEIGHTS.is_file():
        train(seen)
    dense = unet()
    dense.load_state_dict(load_file(WEIGHTS))
    images, labels = unseen.draw(EVALUATED, np.random.default_rng(SEED + 1))
    calibration, _ = seen.draw(CALIBRATED, np.random.default_rng(SEED + 2))
    whole = mean_iou(dense, images, labels)
    rows: list[list[object]] = [["dense", "", "", whole, 1.0, 1.0, ""]]
    few = list(torch.split(calibration, 16))
    ways: list[tuple[str, Restorer, list[Tensor] | None]] = [
        ("none", Plain(), None),
        ("lbyl", LBYL(), None),
        ("regression, quick", Regression(effort="quick"), None),
        ("regression, quick", Regression(effort="quick"), few),
        ("regression", Regression(), None),
        ("regression", Regression(), few),
    ]
    for way, restorer, data in ways:
        for ratio in (0.3, 0.5):
            start = time.process_time()
            pruned = bequest.prune(
                dense,
                calibration[:1],
                ratio,
                groups="all",
                criterion="l2",
                restorer=restorer,
                data=data,
                seed=SEED,
                progress=False,
            )
            seconds = round(time.process_time() - start, 1)
            before, after = pruned.report.before, pruned.report.after
            left = after.macs / before.macs, after.params / before.params
            score = mean_iou(pruned.model, images, labels)
            knows = "nothing" if data is None else f"{CALIBRATED} images"
            rows.append([ratio, way, knows, score, *left, seconds])
            print(*rows[-1], flush=True)
        _record(rows, unseen)  # what is there so far: refining takes minutes


def _record(rows: list[list[object]], unseen: Scenes) -> None:
    record(
        "shapes",
        rows,
        ["ratio", "restorer", "knows", "mean IoU", "MACs", "params", "CPU seconds"],
        mean_IoU=f"percent, over {len(CLASSES)} classes and all pixels of {EVALUATED} images over "
        f"{len(unseen.pictures)} pictures that training and calibration don't draw over",
        groups="all, which are the inner ones here: no layers add to the same channels",
        training=f"{STEPS} steps of {BATCH} images over {TRAINED_ON} pictures",
        seed=SEED,
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()

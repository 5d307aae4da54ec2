"""The demo's network: a small VGG, trained on scikit-learn's digits, and kept for the next run."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bequest import zoo
from bequest._version import __version__
from bequest.cli.files import write
from bequest.cli.output import Output
from bequest.data import ImageLoader
from bequest.data.arrays import ImageArrays
from bequest.errors import BequestError, MissingExtraError
from bequest.execution.progress import tracked
from bequest.measure import evaluate

NETWORK = "vgg-digits"
_LEAST_TOP1 = 95.0  # on the training images, of which a sound network knows all


@dataclass(frozen=True)
class Training:
    """How the network is trained: SGD with momentum and one cycle of the learning rate.

    Weight decay is what leaves a network that small something to prune: without it every one of
    its filters is used, and there is nothing that others could take over.
    """

    epochs: int = 30
    batch_size: int = 50
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 0.02
    seed: int = 0
    held_out: int = 597


@dataclass(frozen=True)
class Digits:
    """Images uint8 (N, 8, 8) and labels (N,), for training and held out."""

    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]


def load_digits(training: Training) -> Digits:
    """scikit-learn's 1,797 digits, split so that each class has its share on both sides.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "demo", "bequest demo") from error
    values, labels = datasets.load_digits(return_X_y=True)
    images = np.round(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    x_train, x_test, y_train, y_test = model_selection.train_test_split(
        images,
        labels.astype(np.int64),
        test_size=training.held_out,
        stratify=labels,
        random_state=training.seed,
    )
    return Digits((x_train, y_train), (x_test, y_test))


def loader(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImageLoader:
    """The images in the form that the network reads."""
    preprocessing = zoo.entry(NETWORK).preprocessing
    return ImageLoader(ImageArrays(images, labels, "digits"), preprocessing)


def trained_network(digits: Digits, training: Training, output: Output) -> nn.Module:
    """The network of an earlier run, or one that is trained now and kept."""
    path = _cache() / f"{NETWORK}-{_key(training)}.safetensors"
    network = zoo.create(NETWORK)
    if path.is_file():
        try:
            zoo.load_weights(network, path)
            if evaluate(network, loader(*digits.train)).top1 >= _LEAST_TOP1:
                output.note(f"Trained weights of an earlier run: {path}")
                return network.eval()
            output.note(f"{path} is damaged; training again.")
        except BequestError as error:
            output.note(f"{error}; training again.")
    network = _train(digits, training)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, to_safetensors(network.state_dict()))
    except (BequestError, OSError) as error:
        output.note(f"The trained weights are not kept: {error}")
    return network


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bequest"


def _key(training: Training) -> str:
    """Another version or another training is another file."""
    return hashlib.sha256(f"{__version__} {training}".encode()).hexdigest()[:12]


def _train(digits: Digits, training: Training) -> nn.Module:
    images, labels = _tensors(*digits.train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = zoo.create(NETWORK).train()
        optimiser = torch.optim.SGD(
            network.parameters(),
            lr=training.rate,
            momentum=training.momentum,
            weight_decay=training.decay,
            nesterov=True,
        )
        steps = training.epochs * -(-len(images) // training.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, steps)
        epochs = range(training.epochs)
        for _ in tracked(epochs, f"training {NETWORK}", epochs, shown=True):
            order = torch.randperm(len(images))
            for batch in torch.split(order, training.batch_size):
                loss = cross_entropy(network(images[batch]), labels[batch])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
    return network.eval()


def _tensors(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    preprocessing = zoo.entry(NETWORK).preprocessing
    return preprocessing.normalise(images[..., None]), torch.from_numpy(labels)

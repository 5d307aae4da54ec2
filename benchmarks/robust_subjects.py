"""The networks of the robustness tables, trained here and kept in ``build/robust``.

MNIST: the public copy at hand has the 10,000 test images alone; every fifth is kept for reporting,
the network is trained on the other 8,000. CIFAR-10: trained on 25,000 images, reported on test
images. Pixels are in 0..1, as in the published protocol. Adam, rate 1e-3, batches of 32.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.record import shared_folder
from bequest.data.idx import open_idx

CHECKPOINTS = Path(__file__).parents[1] / "build" / "robust"
Split = tuple[Tensor, Tensor]


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """784-128-128-64-10 of the published table."""
    widths, layers = (784, 128, 128, 64), list[nn.Module]()
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10))


def cnn(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """conv32-pool-conv64-pool-conv64-128-64-10.

    The third convolution ends in a softmax over its channels, as published.
    """
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3), nn.Softmax(dim=1), nn.Flatten()),
        *(nn.Linear(1024, 128), activation(), nn.Linear(128, 64), activation(), nn.Linear(64, 10)),
    )


def mnist() -> tuple[Split, Split]:
    """8,000 images to train on and 2,000 to report on."""
    held = open_idx(shared_folder() / "data/mnist/t10k-images-idx3-ubyte.gz")
    pairs = [held[i] for i in range(len(held))]
    x = torch.from_numpy(np.stack([pair[0] for pair in pairs])).movedim(-1, 1) / 255
    y = torch.tensor([pair[1] for pair in pairs])
    reported = torch.arange(len(y)) % 5 == 0
    return (x[~reported], y[~reported]), (x[reported], y[reported])


def cifar() -> tuple[Split, Split]:
    """25,000 images to train on and the 10,000 test images."""
    return _npz("train-0.npz"), _npz("test.npz")


def _npz(name: str) -> Split:
    with np.load(shared_folder() / "data/cifar10" / name, allow_pickle=False) as held:
        x, y = torch.from_numpy(held["x"]), torch.from_numpy(held["y"])
    return x.movedim(-1, 1) / 255, y


def trained(
    name: str,
    make: Callable[[], nn.Module],
    data: Callable[[], tuple[Split, Split]],
    *,
    seed: int,
    epochs: int,
) -> nn.Module:
    """The network ``name`` of ``seed``, in evaluation mode; trained where there is no checkpoint.

    Args:
        name: of the checkpoint.
        make: makes the network.
        data: the images; the first part is trained on.
        seed: of the initial weights and the order of the images.
        epochs: passes over the training images.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
        path = CHECKPOINTS / f"{name}-{seed}.safetensors"
        if path.exists():
            model.load_state_dict(load_file(path))
            return model.eval()
        _train(model, data()[0], epochs)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path)
    return model.eval()


def _train(model: nn.Module, images: Split, epochs: int) -> None:
    x, y = images
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for batch in torch.randperm(len(y)).split(32):  # type: ignore[no-untyped-call]
            with torch.autocast("cpu", torch.bfloat16, enabled=x.shape[1] == 3):
                loss = cross_entropy(model(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        print(f"epoch {epoch + 1}/{epochs}, loss {loss.item():.3f}", flush=True)

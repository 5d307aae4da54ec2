"""Small networks with random weights; tracing depends on the structure alone and is done once."""

from __future__ import annotations

import torch
from torch import nn

from bequest.graph.trace import trace

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "leaky": lambda: nn.LeakyReLU(0.2)}


def mlp(activation, bias=True):
    layers = [nn.Linear(6, 8, bias=bias), activation(), nn.Linear(8, 7), activation()]
    return nn.Sequential(*layers, nn.Linear(7, 3, bias=bias))


def convolutional(activation, bias=True):
    first = [nn.Conv2d(2, 6, 3, padding=1, bias=bias), activation(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 5, 3, bias=bias), activation(), nn.Flatten()]
    return nn.Sequential(*first, *second, nn.Linear(20, 6), activation(), nn.Linear(6, 3))


def normed(activation, bias=False):
    first = [nn.Conv2d(2, 6, 3, bias=bias), nn.BatchNorm2d(6), activation(), nn.AvgPool2d(2)]
    second = [nn.Conv2d(6, 5, 3, bias=bias), nn.BatchNorm2d(5), activation(), nn.Flatten()]
    return nn.Sequential(*first, *second, nn.Linear(5, 3))


SHAPES = {mlp: (6,), convolutional: (2, 8, 8), normed: (2, 8, 8)}


def randomised(model, generator):
    """Weights about as large as trained ones, biases and norms that are not the default."""
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            size = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.5
            tensor.copy_(noise * 1.5 * size)
            if "running_var" in name:
                tensor.copy_(noise.abs() + 0.1)
    return model.double().eval()


def traced_once():
    """A ``trace`` that exports each structure once."""
    held = {}

    def cached(model, example_inputs):
        key = repr(model), str([tuple(t.shape) for t in example_inputs])
        if key not in held:
            held[key] = trace(model, example_inputs)
        return held[key]

    return cached

"""The initial weights of the convolutional networks."""

from __future__ import annotations

from torch import nn


def initialise(network: nn.Module) -> None:
    """Draws every convolution from N(0, 2/fan_out), in place; biases start at zero.

    Batch norm and linear layers keep PyTorch's defaults (identity; uniform ±1/√fan_in).

    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, eq. 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

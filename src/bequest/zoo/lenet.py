"""LeNet-300-100, the fully connected network of LeCun et al. (1998)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu


class LeNet300100(nn.Module):
    """Two hidden layers of 300 and 100 ReLU units over 28x28 pixels.

    ``ip1``, ``ip2`` and ``ip3`` ("inner product") are the names that published weights use.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
    recognition", Proc. IEEE 86 (1998), section III.C.2.

    Shape:
        (B, 1, 28, 28) or (B, 784) → (B, num_classes).
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.ip1 = nn.Linear(28 * 28, 300)
        self.ip2 = nn.Linear(300, 100)
        self.ip3 = nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        x = relu(self.ip1(x.flatten(1)))
        x = relu(self.ip2(x))
        logits: Tensor = self.ip3(x)
        return logits

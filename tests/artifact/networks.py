"""Small networks with odd tensors, each with a surgery made by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bequest.artifact.fingerprint import fingerprint
from bequest.artifact.plan import GroupPlan, Plan, Refusal
from bequest.surgery import operation
from bequest.surgery.operation import Attribute, Surgery, TensorCut


class GroupedTail(nn.Module):
    """A batch norm, then a grouped convolution without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 6, 3, groups=2, bias=False)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(torch.relu(self.norm(self.first(x))))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


GROUPED = Surgery(
    cuts=(
        TensorCut("grouped.weight", 1, (0, 2, 3, 1, 2, 3), blocks=2),
        TensorCut("first.weight", 0, (0, 2, 3, 5, 6, 7)),
        TensorCut("first.bias", 0, (0, 2, 3, 5, 6, 7)),
        TensorCut("norm.weight", 0, (0, 2, 3, 5, 6, 7)),
        TensorCut("norm.bias", 0, (0, 2, 3, 5, 6, 7)),
        TensorCut("norm.running_mean", 0, (0, 2, 3, 5, 6, 7)),
        TensorCut("norm.running_var", 0, (0, 2, 3, 5, 6, 7)),
    ),
    attributes=(
        Attribute("grouped", "in_channels", 8, 6),
        Attribute("first", "out_channels", 8, 6),
        Attribute("norm", "num_features", 8, 6),
    ),
    biases=("grouped",),
)


class TiedEmbedding(nn.Module):
    """One weight is both the embedding and the head; one norm has two names."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.norm = nn.LayerNorm(8)
        self.same_norm = self.norm
        self.head = nn.Linear(8, 10, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.same_norm(self.norm(self.embed(x))))
        return scores


TIED = Surgery(
    cuts=(
        TensorCut("embed.weight", 1, (0, 1, 4, 5, 7)),
        TensorCut("norm.weight", 0, (0, 1, 4, 5, 7)),
        TensorCut("norm.bias", 0, (0, 1, 4, 5, 7)),
    ),
    attributes=(
        Attribute("embed", "embedding_dim", 8, 5),
        Attribute("norm", "normalized_shape", (8,), (5,)),
        Attribute("head", "in_features", 8, 5),
    ),
    biases=("head",),
)


class OddBuffers(nn.Module):
    """A buffer that no state dict holds and is cut, an expanded one, a strided weight, a view."""

    gain: Tensor
    row: Tensor
    table: Tensor
    part: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 8)
        self.outer = nn.Linear(8, 3)
        self.outer.weight = nn.Parameter(torch.randn(8, 3).t())
        self.register_buffer("gain", torch.linspace(1, 2, 8), persistent=False)
        self.register_buffer("row", torch.randn(1, 3).expand(4, 3))
        self.register_buffer("table", torch.randn(4, 3))
        self.register_buffer("part", self.table[1:3])
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("absent", None)

    def forward(self, x: Tensor) -> Tensor:
        x = self.outer(torch.tanh(self.inner(x)) * self.gain)
        return x + self.row.mean(0) + self.table[0] + self.part[0] * self.steps


ODD = Surgery(
    cuts=(
        TensorCut("inner.weight", 0, (1, 2, 6)),
        TensorCut("inner.bias", 0, (1, 2, 6)),
        TensorCut("outer.weight", 1, (1, 2, 6)),
        TensorCut("gain", 0, (1, 2, 6)),
    ),
    attributes=(
        Attribute("inner", "out_features", 8, 3),
        Attribute("outer", "in_features", 8, 3),
    ),
    biases=(),
)


@dataclass(frozen=True)
class Case:
    """A network, what is taken out of it, and something to feed it."""

    make: Callable[[], nn.Module]
    surgery: Surgery
    inputs: Tensor

    def pruned(self, dense: nn.Module) -> tuple[nn.Module, Plan]:
        """A pruned copy of ``dense`` with values no fresh instance has, and its plan."""
        model = copy.deepcopy(dense)
        operation.apply(model, self.surgery)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
            for name, buffer in model.named_buffers():
                if name not in ("gain", "row"):
                    buffer.add_(1)
        if isinstance(model, OddBuffers):
            model.row = torch.randn(1, 3).expand(4, 3)
        return model, plan_of(dense, self.surgery)


def plan_of(dense: nn.Module, surgery: Surgery) -> Plan:
    """A plan with something in every field."""
    return Plan(
        architecture=fingerprint(dense),
        recipe={"ratio": {"layer*": 0.3, "*": 0.5}, "seed": 0, "data": None, "list": [1, [True]]},
        versions={"bequest": "0.1.0", "torch": torch.__version__},
        groups=(
            GroupPlan("first", "inner", ("first",), ("grouped",), 8, (1, 4), "lbyl", 0.25, ("é",)),
            GroupPlan("other", "residual", ("a", "b"), (), 4, (), "none", None, ()),
        ),
        refused=(Refusal("head", 4, "channels are the network's output"),),
        surgery=surgery,
    )


CASES = {
    "GroupedTail": Case(GroupedTail, GROUPED, torch.randn(5, 3, 8, 8)),
    "TiedEmbedding": Case(TiedEmbedding, TIED, torch.arange(10)),
    "OddBuffers": Case(OddBuffers, ODD, torch.randn(6, 5)),
}

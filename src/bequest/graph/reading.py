"""What a network turns out to be when it is read: layers' outputs and inputs, and all roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import fx

from bequest.graph.ledger import Labels, Layout, Ledger
from bequest.graph.trace import Network

Role = Literal[
    "norm",
    "activation",
    "elementwise",
    "linear",
    "monotone",
    "pad",
    "layer",
    "join",
    "wall",
    "input",
]
"""What an operator does to the channels that pass it, for the chain from producer to consumer:

"norm"        batch norm in evaluation mode: an affine map per channel
"activation"  the same function on every element
"elementwise" the same function of the elements of several tensors that stand in one place
"linear"      per-channel linear and the identity on constants: views, average pooling, upsampling
"monotone"    max pooling: keeps constants and positive multiples, not sums
"pad"         brings zeros in, or sums at a border in another way than inside
"layer"       a convolution or linear layer
"join"        anything else that mixes in other tensors or data: group norm, softmax
"""


@dataclass(frozen=True)
class Write:
    """A layer's output channels: ``labels`` are indices of dimension ``dim`` of ``weight``.

    With ``groups`` > 1 they fall into as many blocks, each of which reads other inputs.
    """

    node: fx.Node
    kind: Literal["conv", "linear"]
    weight: str | None
    bias: str | None
    dim: int
    labels: Labels
    groups: int


@dataclass(frozen=True)
class Read:
    """A layer's input channels: ``labels`` are indices of dimension ``dim`` of ``weight``.

    With ``groups`` > 1 the dimension is local to each of as many blocks of rows. ``spread`` is the
    number of output places among which a transposed convolution shares a kernel (else 1).
    """

    node: fx.Node
    weight: str | None
    bias: str | None
    dim: int
    labels: Labels
    groups: int
    zero_padded: bool
    spread: int = 1


@dataclass(frozen=True)
class Fork:
    """A view that lays channels out over several dimensions, one of which keeps the labels.

    Attributes:
        labels: the channels before the view.
        kept: those behind it.
        part: which of the new dimensions keeps them, counted from the end (1 = the last).
        size: its size.
        parts: how many new dimensions there are.
    """

    labels: Labels
    kept: Labels
    part: int
    size: int
    parts: int


@dataclass
class Reading:
    """What a network turns out to be, before channels are grouped.

    Attributes:
        network: what is read.
        ledger: all statements about labels.
        layouts: node → where its channels are; one layout per result.
        roles: node → what it does to channels that pass.
        writes: layers' outputs, in order.
        reads: layers' inputs, in order.
        walls: operators without a rule that channels met.
        normalised: norm whose statistics are taken over channels → those channels.
        reductions: reduction over channels → those channels, to be judged when all is read.
        steady: nodes that don't depend on the network's inputs.
        sources: node → the layers, walls and inputs that it is made of by operators in between.
        inside: labels of sums inside one branch → the layers between their terms.
        origins: node → the tensors that it is a linear map of, itself among them.
        parts: view → the part of a split dimension that is to keep the labels (see Fork).
        forks: views that had a choice, and which it was.
    """

    network: Network
    ledger: Ledger
    layouts: dict[fx.Node, Layout | tuple[Layout, ...]] = field(default_factory=dict)
    roles: dict[fx.Node, Role] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    walls: list[str] = field(default_factory=list)
    normalised: dict[fx.Node, Labels] = field(default_factory=dict)
    reductions: dict[fx.Node, Labels] = field(default_factory=dict)
    steady: set[fx.Node] = field(default_factory=set)
    sources: dict[fx.Node, frozenset[fx.Node]] = field(default_factory=dict)
    inside: list[tuple[Labels, frozenset[fx.Node]]] = field(default_factory=list)
    origins: dict[fx.Node, frozenset[fx.Node]] = field(default_factory=dict)
    parts: Mapping[fx.Node, int] = field(default_factory=dict)
    forks: dict[fx.Node, Fork] = field(default_factory=dict)

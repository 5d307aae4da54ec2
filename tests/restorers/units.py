"""Units built by hand, and what they compute: the references that the methods are held against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu

from bequest.graph.units import Activation, BatchNorm, Consumer, Producer, Unit

IDENTITY = Activation("identity", lambda x: x, homogeneous=True)
RELU = Activation("relu", torch.relu, homogeneous=True)
GELU = Activation("gelu", gelu, homogeneous=False)
SIGMOID = Activation("sigmoid", torch.sigmoid, homogeneous=False)


def batch_norm(n: int, generator: torch.Generator) -> BatchNorm:
    """A batch norm whose scales lie between 0.5 and 1.5."""
    return BatchNorm(
        gamma=0.5 + torch.rand(n, generator=generator, dtype=torch.float64),
        beta=torch.randn(n, generator=generator, dtype=torch.float64),
        mean=torch.randn(n, generator=generator, dtype=torch.float64),
        var=0.5 + torch.rand(n, generator=generator, dtype=torch.float64),
        eps=1e-5,
    )


def make_unit(
    n=10,
    d=24,
    *,
    kind="conv",
    norm=True,
    bias=False,
    activation=RELU,
    padded=False,
    consumers=((7, 1),),
    seed=0,
    name="unit",
):
    """A random unit of n channels with d weights each; ``consumers`` lists (outputs, positions)."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    producer = Producer(
        f"{name}.producer",
        kind,
        normal(n, d),
        normal(n) if bias else None,
        batch_norm(n, g) if norm else None,
    )
    readers = tuple(
        Consumer(f"{name}.consumer{i}", normal(o, n, q), padded)
        for i, (o, q) in enumerate(consumers)
    )
    return Unit(name, n, (producer,), activation, readers, None)


def halves(n: int, p: int) -> tuple[Tensor, Tensor]:
    """A random partition of n channels into p kept and n − p removed ones, each ascending."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(n * 31 + p))
    return order[:p].sort().values, order[p:].sort().values


def outputs(unit, x):
    """What each consumer makes of inputs x (b, d); positions add up, as for a constant map."""
    weight, bias = unit.producer.folded()
    hidden = unit.activation.apply(x @ weight.T + bias)
    return [hidden @ c.weight.sum(dim=2).T for c in unit.consumers]


def restored_outputs(unit, x, kept, removed, given):
    """The same after pruning: only kept channels exist, consumers changed as the delivery says."""
    weight, bias = unit.producer.folded()
    hidden = unit.activation.apply(x @ weight[kept].T + bias[kept])
    results = []
    for consumer in unit.consumers:
        own = consumer.weight[:, kept]
        if given.gain is not None:
            own = own * given.gain[:, None]
        taken_up = torch.einsum("ojq,jk->okq", consumer.weight[:, removed], given.matrix)
        result = hidden @ (own + taken_up).sum(dim=2).T
        if given.offset is not None:
            result = result + consumer.weight[:, removed].sum(dim=2) @ given.offset
        results.append(result)
    return results


def assert_exact(unit, kept, removed, given, tolerance=1e-8):
    """The consumers can't tell the pruned unit from the dense one."""
    x = torch.randn(64, unit.producer.weight.shape[1], dtype=torch.float64)
    dense = outputs(unit, x)
    for found, expected in zip(restored_outputs(unit, x, kept, removed, given), dense, strict=True):
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()

"""What is rewritten is what PyTorch's own trace of it gives, operator by operator."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from bequest.graph import functional as module
from bequest.graph.functional import functional
from bequest.graph.trace import meta_copy
from tests.graph.test_random_networks import networks, relaxed


def exported(model, x):
    with torch.no_grad():
        return torch.export.export(meta_copy(model.eval()), (x.to("meta"),))


def written(program: ExportedProgram):
    """Operator, arguments, and shape, strides and type of the value, of every node in order."""
    numbers: dict[fx.Node, int] = {}
    for node in program.graph.nodes:
        numbers[node] = len(numbers)
        value = node.meta.get("val")
        value = value[0] if isinstance(value, tuple) else value
        kind = (value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else None
        given = fx.map_arg((node.args, node.kwargs), lambda one: f"%{numbers[one]}")
        place = [one[0] for one in (node.meta.get("nn_module_stack") or {}).values()][-1:]
        target = node.name if node.op == "placeholder" else str(node.target)
        yield node.op, target, str(given), kind, [] if node.op != "call_function" else place


def require_equal(model, x):
    program, other = exported(model, x), exported(model, x)
    assert [*written(functional(program))] == [*written(other.run_decompositions({}))]


class Same(nn.Module):
    """An operator or two, as code."""

    def __init__(self, code, *layers):
        super().__init__()
        self.code, self.layers = code, nn.ModuleList(layers)

    def forward(self, x):
        return self.code(x, *self.layers)


REWRITTEN = {
    "inplace": (
        lambda x, c, b: nn.functional.relu_(b(c(x))) + 1,
        (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
    ),
    "inplace, read afterwards under its old name": (
        lambda x, c: ((y := c(x)).relu_(), y * 2)[1],
        (nn.Conv2d(4, 4, 1),),
    ),
    "inplace twice": (
        lambda x, c: (y := c(x)).relu_().add_(x).mul_(x) + y,
        (nn.Conv2d(4, 4, 1),),
    ),
    "inplace, read before": (
        lambda x, c: (y := c(x)).add_(z := y * 2) + z,
        (nn.Conv2d(4, 4, 1),),
    ),
    "inplace onto a sum that is its own operand": (
        lambda x, c: (y := c(x)).add_(y),
        (nn.Conv2d(4, 4, 1),),
    ),
    "relu6": (lambda x, c: nn.functional.relu6(c(x), inplace=True), (nn.Conv2d(4, 4, 1),)),
    "others inplace": (
        lambda x, c: nn.functional.hardswish(
            nn.functional.silu(nn.functional.leaky_relu(c(x), 0.2, True), True), True
        ),
        (nn.Conv2d(4, 4, 1),),
    ),
    "batch norm without scale": (lambda x, b: b(x), (nn.BatchNorm2d(4, affine=False),)),
    "dropout": (lambda x, d: d(x).relu(), (nn.Dropout(0.3),)),
    "reshapes of what lies in order": (
        lambda x: x.reshape(2, -1).reshape(2, -1, 3).unflatten(1, (4, -1)).flatten(2),
        (),
    ),
    "reshapes of what doesn't": (
        lambda x: x.transpose(1, 3).reshape(2, -1) + x.permute(2, 0, 1, 3).flatten(1).sum((0, 1)),
        (),
    ),
    "reshapes of what is repeated": (
        lambda x: (
            x[:, :1].expand(-1, 3, -1, -1).reshape(2, -1, 6)
            + x[:1, :1, :1].expand(2, 3, 6, 6).flatten(1, 2)
        ),
        (),
    ),
    "reshapes of slices": (
        lambda x: (
            x[:, :1].flatten()[:6]
            + x[:, :1].reshape(-1)[:6]
            + x.chunk(4, 1)[0].flatten()[:6]
            + x[:, :, :1].transpose(1, 3).flatten(1)[0, :6]
            + x[:1].reshape(4, 36)[0, :6]
        ),
        (),
    ),
    "flat already": (lambda x: x.flatten(1).flatten(1), ()),
    "contiguous": (
        lambda x: x.transpose(2, 3).contiguous().view(2, -1) + x.contiguous().view(2, -1),
        (),
    ),
    "chunks": (lambda x: x.chunk(3, 1)[0] + sum(x.chunk(4, 1)), ()),
    "what nobody reads": (lambda x, c: (c(x), x * 2)[1], (nn.Conv2d(4, 4, 1),)),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_listed_operators_are_rewritten(name, monkeypatch):
    code, layers = REWRITTEN[name]
    model, x = Same(code, *layers), torch.randn(2, 4, 6, 6)
    other = [*written(exported(model, x).run_decompositions({}))]
    monkeypatch.setattr(ExportedProgram, "run_decompositions", refused)
    assert [*written(functional(exported(model, x)))] == other


def refused(*_):
    raise AssertionError("it is traced again")


TRACED = {
    "writes into a view": lambda x: ((y := x * 2)[:, 0].relu_(), y)[1],
    "writes into what a view shows": lambda x: ((v := (y := x * 2)[:, 0]), y.relu_(), v)[2],
    "writes into what a reshape shows": lambda x: (
        (v := (y := x * 2).reshape(2, -1)),
        y.relu_(),
        v * 2,
    )[2],
    "writes into what a view of an earlier write shows": lambda x: (
        (v := (y := x * 2).relu_().reshape(2, -1)),
        y.add_(1),
        v * 2,
    )[2],
    "writes twice, and a view of the first name in between": lambda x: (
        (w := (y := x * 2).relu_()),
        (v := y.reshape(2, -1)),
        w.mul_(2),
        v * 2,
    )[3],
    "writes into the input": lambda x: x.relu_() + 1,
    "writes into what dropout hands on": lambda x: nn.functional.dropout(x, 0.1, False).relu_(),
    "writes another type": lambda x: (x * 2).add_(torch.ones_like(x, dtype=torch.float64)),
    "statistics of the batch": lambda x: nn.functional.batch_norm(x, None, None, training=True),
    "random numbers": lambda x: nn.functional.dropout(x, 0.1, True),
    "chunks of nothing": lambda x: x[:, :0].chunk(3, 1)[0] + 1,
    "an operator that isn't listed": lambda x: torch.cumsum(x, 1).reshape(2, -1),
}


@pytest.mark.parametrize("name", TRACED)
def test_others_are_traced(name, monkeypatch):
    model, x = Same(TRACED[name]), torch.randn(2, 4, 6, 6)
    require_equal(model, x)
    monkeypatch.setattr(ExportedProgram, "run_decompositions", refused)
    with pytest.raises(AssertionError, match="traced again"):
        functional(exported(model, x))


@relaxed
@given(networks)
def test_random_networks(network):
    require_equal(network, torch.randn(2, 3, 12, 12))


def test_lists_name_operators_that_there_are():
    for one in module.OWN | module.VIEWS | module.WRITING | {*module._FORMS}:
        name, overload = one.split(".")
        assert getattr(getattr(torch.ops.aten, name), overload)
    for one in module.OWN:
        name, overload = one.split(".")
        schema = getattr(getattr(torch.ops.aten, name), overload)._schema
        assert not any(result.alias_info for result in schema.returns), one

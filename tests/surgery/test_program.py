"""A program computes what the network computes, without its class, at any batch size."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import bequest
from bequest.errors import ArtifactError, ModelError, UsageError
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace
from bequest.restorers import Regression
from bequest.selection import bearing
from bequest.surgery.cut import Cut
from bequest.surgery.emission import check_emittable, emit
from bequest.surgery.narrowing import narrowed
from bequest.surgery.program import Program, resolve
from tests.graph.masking import masked, plainly
from tests.graph.test_exactness import flat, outputs, prepared
from tests.networks import NETWORKS, LiteralAttention, LiteralSlice, UnequalSplit


def unpruned(model: nn.Module, x: Tensor) -> Program:
    channels = group(read(trace(model, x)))
    cut = Cut.of(channels)
    return emit(model, x, cut, copy.deepcopy(model))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_the_program_of_a_whole_network_is_the_network(network):
    model, x = prepared(network)
    program = unpruned(model, x)
    assert program.any_batch
    for batch in (x, x[:1], torch.cat([x, x.flip(0), x])):
        torch.testing.assert_close(outputs(program, batch), outputs(model, batch))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_class_and_program_agree_on_what_is_left(network):
    """Two ways from one plan: the class's code at new widths, and the trace at new widths."""
    model, x = prepared(network)
    channels = group(read(trace(model, x)))
    pruned = bequest.prune(model, x, 0.5, groups="all", restorer="none", round_to=1)
    gone = {one.name: one.removed for one in pruned.plan.groups}
    cut = Cut.of(channels)
    for member in channels.groups:
        cut.leaving[member.channels[list(gone.get(member.name, ()))]] = True
    program = emit(model, x, cut, pruned.model)
    torch.testing.assert_close(outputs(program, x), outputs(pruned.model, x))


@pytest.mark.parametrize("network", [LiteralSlice, LiteralAttention, UnequalSplit])
def test_sizes_in_the_code_become_a_program(network):
    model, x = prepared(network)
    pruned = bequest.prune(model, x, 0.5, round_to=1, restorer="none")
    assert pruned.plan.form == "program"
    assert pruned.program is pruned.model
    assert not pruned.plan.refused
    kept = {one.name: one.kept for one in pruned.plan.groups}
    state = dict(pruned.model.named_parameters())
    for name, width in kept.items():
        tensor = state.get(f"{name}.weight", state.get(name))
        assert tensor is not None
        assert width in tensor.shape or tensor.shape[0] % width == 0
    assert set(state) == set(dict(model.named_parameters()))


class Held(nn.Module):
    """Results by name, from inputs by name, with a tensor that the code makes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 8)

    def forward(self, first: Tensor, second: Tensor | None = None) -> OrderedDict[str, object]:
        assert second is not None
        y = F.relu(self.layer(first)) + torch.arange(8).to(first.dtype)
        masked = y.masked_fill(second > 0, float("-inf"))
        return OrderedDict(hidden=y.view(-1, 2, 4), pair=(masked, [second]))


def test_names_of_inputs_and_results_stay():
    model = Held().double()
    inputs = {"first": torch.randn(2, 6).double(), "second": torch.randn(2, 8).double()}
    channels = group(read(trace(model, inputs)))
    cut = Cut.of(channels)
    program = emit(model, inputs, cut, model)
    expected, found = model(**inputs), program(**inputs)
    assert torch.equal(found.hidden, expected["hidden"])
    assert torch.equal(found["pair"][0], expected["pair"][0])
    assert torch.equal(program(inputs["first"], inputs["second"])["pair"][1][0], inputs["second"])


def test_a_bias_that_a_restorer_adds_reaches_the_program():
    model, x = prepared(LiteralSlice)
    model.left.bias = None
    with torch.no_grad():
        model.conv.weight[:4] = 0  # constant channels: they leave an offset
        model.conv.bias[:4] = 3.0
        model.conv.weight[16:20] = 0
        model.conv.bias[16:20] = 2.0
    pruned = bequest.prune(model, x, 8 / 32, criterion="l1", round_to=1)
    assert pruned.plan.form == "program"
    assert "left" in pruned.plan.surgery.biases or pruned.plan.groups[0].restored_by == "none"
    assert flat(pruned.model(x)).isfinite().all()


class Counted(nn.Module):
    """Flattened maps, whose number stands in the code, next to something odd."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.hidden = nn.Linear(8 * 16, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(F.relu(self.conv(x)).reshape(-1, 128))))


@torch.library.custom_op("bequest_tests::singular_values", mutates_args=())
def singular_values(x: Tensor) -> Tensor:
    """Without a rule, in a library that programs know nothing of."""
    return torch.linalg.svdvals(x)


@singular_values.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:-1])


class Factorised(Counted):
    """Singular values of the input are added to the answer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + singular_values(x[:, 0])


class Gridded(Counted):
    """A grid is laid out and repeated for every sample, far from any channel."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(torch.arange(2.0), torch.arange(2.0), indexing="ij")
        grid = (rows - columns).flatten().repeat(len(x), 1)
        return super().forward(x) + grid.to(x)


class Remembering(Counted):
    """Numbers are kept from the last call, and made anew by a forbidden operator for others."""

    shape: torch.Size | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.shape != x.shape:
            self.shape, self.kept = x.shape, singular_values(torch.eye(4))
        return super().forward(x) + self.kept.to(x)


class Configured(Counted):
    """Takes a flag and a number besides its tensor."""

    def forward(self, x: Tensor, negative: bool = False, times: float = 1.0) -> Tensor:
        y = super().forward(x)
        return -y * times if negative else y * times


class Tempered(nn.Module):
    """Takes a tensor without dimensions first."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Counted()

    def forward(self, temperature: Tensor, x: Tensor) -> Tensor:
        return self.net(x) / temperature


def counted(network: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    return network().double().eval(), torch.randn(2, 2, 4, 4).double()


def test_an_operator_that_programs_may_not_hold_is_refused_by_name():
    model, x = counted(Factorised)
    with pytest.raises(ModelError, match="singular_values"):
        check_emittable(model, x, group(read(trace(model, x))))
    pruned = plainly(model, x)
    assert pruned.plan.form == "module"
    assert [one.name for one in pruned.plan.groups] == ["hidden"]
    assert "singular_values" in next(
        one.reason for one in pruned.plan.refused if one.group == "conv"
    )


def test_operators_far_from_channels_are_written_down_as_they_are(tmp_path):
    model, x = counted(Gridded)
    pruned = plainly(model, x)
    assert pruned.plan.form == "program"
    assert pruned.program.any_batch
    assert not pruned.plan.refused
    pruned.save(tmp_path / "out")
    loaded = bequest.load(tmp_path / "out")
    for batch in (x, x[:1], torch.cat([x, x, x])):
        torch.testing.assert_close(pruned.model(batch), masked(model, batch, pruned)(batch))
        assert torch.equal(loaded(batch), pruned.model(batch))


def test_what_turns_up_at_another_batch_size_makes_a_program_of_one():
    model, x = counted(Remembering)
    model(x)
    pruned = plainly(model, x)
    assert pruned.plan.form == "program"
    assert not pruned.program.any_batch
    torch.testing.assert_close(pruned.model(x), masked(model, x, pruned)(x))


def test_a_program_holds_flags_to_what_they_were_in_the_trace(tmp_path):
    model, x = counted(Configured)
    pruned = plainly(model, {"x": x, "negative": True})
    assert pruned.plan.form == "program"
    assert not pruned.plan.refused
    pruned.save(tmp_path / "out")
    for one in (pruned.model, bequest.load(tmp_path / "out")):
        found = one(x, negative=True)
        torch.testing.assert_close(found, -plainly(model, x).model(x))
        with pytest.raises(UsageError, match="traced with negative=True: expected that, found"):
            one(x, False)
        with pytest.raises(UsageError, match="expected that, found False"):
            one(x)  # which of the network means False


def test_what_a_call_leaves_out_is_what_the_network_takes_it_to_be():
    model, x = counted(Configured)
    one = plainly(model, {"x": x, "negative": False, "times": 1.0}).model
    assert torch.equal(one(x), one(x, negative=False, times=1.0))


def test_a_number_that_json_cannot_hold_makes_no_program():
    model, x = counted(Configured)
    pruned = plainly(model, {"x": x, "times": math.inf}, groups="inner")
    assert pruned.plan.form == "module"
    assert any("the network takes inf" in one.reason for one in pruned.plan.refused)


def test_the_batch_is_that_of_an_input_with_dimensions(tmp_path):
    model, x = counted(Tempered)
    one = plainly(model, (x.new_tensor(2.0), x))
    assert one.plan.form == "program"
    one.save(tmp_path / "out")
    found = bequest.load(tmp_path / "out")(x.new_tensor(2.0), x[:1])
    torch.testing.assert_close(found, one.model(x.new_tensor(2.0), x)[:1])


class Batched(nn.Module):
    """A width that stands in the code makes it a program; then something is said of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Linear(10, 16), nn.Linear(16, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(self.stem(x).relu()).relu().view(-1, 24)
        return self.head(self.of_batch(hidden))

    def of_batch(self, hidden: Tensor) -> Tensor:
        return hidden - hidden.sum(0) / float(len(hidden))


class Weighed(Batched):
    def of_batch(self, hidden: Tensor) -> Tensor:
        return torch.add(hidden, hidden.mean(0), alpha=len(hidden))


class Divided(Batched):
    def of_batch(self, hidden: Tensor) -> Tensor:
        return hidden - hidden.sum(0) / torch.tensor([len(hidden) ** 0.5])


class Grouped(Batched):
    """The deviation within groups of four at most, as some discriminators have it."""

    def of_batch(self, hidden: Tensor) -> Tensor:
        count = min(len(hidden), 4)
        several = hidden.view(count, len(hidden) // count, 24)
        return hidden * several.var(0, correction=0).repeat(count, 1)


class Clips(Batched):
    """Four frames of a clip each lie in the batch."""

    def of_batch(self, hidden: Tensor) -> Tensor:
        return hidden.view(len(hidden) // 4, 4, 24).mean(1)


class Paired(Batched):
    def of_batch(self, hidden: Tensor) -> Tensor:
        return hidden.view(2, -1, 24).sum(0)


class Doubling(Batched):
    """Goes another way where there are more than two."""

    def of_batch(self, hidden: Tensor) -> Tensor:
        return hidden * 2 if len(hidden) > 2 else hidden


class Lonely(Batched):
    """Skips what a single one doesn't need, and something else."""

    def of_batch(self, hidden: Tensor) -> Tensor:
        return hidden * 2 if len(hidden) > 1 else hidden


@pytest.mark.parametrize(
    ("network", "examples"),
    [
        (Batched, (1, 2, 3)),
        (Weighed, (1, 2, 3)),
        (Divided, (1, 3)),
        (Grouped, (1, 2, 4, 8)),
        (Clips, (4, 8)),
        (Paired, (2, 6)),
        (Doubling, (1, 2, 3)),
        (Lonely, (1, 2)),
    ],
)
def test_what_is_said_of_the_batch_holds_at_every_size_that_the_program_takes(network, examples):
    model, x = network().double().eval(), torch.randn(72, 10).double()
    for count in examples:
        pruned = plainly(model, x[:count])
        assert {one.name for one in pruned.plan.groups} == {"stem", "inner"}
        takes = (count, 2 * count, 36, 72) if pruned.program.any_batch else (count,)
        for size in takes:
            wanted = masked(model, x[:size], pruned)(x[:size])
            torch.testing.assert_close(pruned.model(x[:size]), wanted)


def test_whole_multiples_of_the_batch_size_do_for_any():
    x = torch.randn(2, 10)
    found = plainly(Weighed().eval(), x)
    assert found.program.any_batch
    assert not any("batches" in note for note in found.report.notes)
    found = plainly(Batched().eval(), x)
    assert not found.program.any_batch
    assert any("batches of the example's size alone" in note for note in found.report.notes)


class Chain(nn.Module):
    """Blocks whose sizes stand in the code, blocks without, and no way to a program."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.literal = nn.ModuleList(Counted() for _ in range(blocks))
        self.plain = nn.ModuleList(nn.Linear(4, 8) for _ in range(blocks))
        self.back = nn.ModuleList(nn.Linear(8, 4) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        y = singular_values(x[:, 0])
        for literal, plain, back in zip(self.literal, self.plain, self.back, strict=True):
            y = y + literal(x) + back(F.relu(plain(y)))
        return y


def test_however_many_sizes_stand_in_the_code_the_others_are_pruned():
    model, x = counted(lambda: Chain(20))
    pruned = plainly(model, x, groups="inner")
    names = {one.name for one in pruned.plan.groups}
    assert names == {name for i in range(20) for name in (f"plain.{i}", f"literal.{i}.hidden")}
    refused = [one for one in pruned.plan.refused if one.group.endswith("conv")]
    assert len(refused) == 20
    assert all("singular_values" in one.reason and "not tried" not in one.reason for one in refused)
    assert not any("where the search ended" in one.reason for one in refused)


def test_a_search_out_of_tries_leaves_parts_out_whole_and_still_takes_sound_ones():
    def problem(some: list[str]) -> str | None:
        return "b breaks" if "b" in some else None

    parts = [["a", "b"], ["c", "d"]]
    assert narrowed(parts, problem) == (["a", "c", "d"], [("b", "b breaks")])
    sound, misfits = narrowed(parts, problem, 1)
    assert sound == ["c", "d"]
    assert [one for one, _ in misfits] == ["a", "b"]
    assert all("b breaks (tried with 1 others alone" in found for _, found in misfits)


def test_how_long_is_searched_is_counted_in_operators(monkeypatch):
    model, x = counted(lambda: Chain(4))
    found = plainly(model, x, groups="inner").plan
    assert {one.name for one in found.groups if one.name.startswith("plain")}
    monkeypatch.setattr(bearing, "RUNS", 1)
    monkeypatch.setattr(bearing, "TRACES", 1)
    fewer = plainly(model, x, groups="inner").plan
    assert {one.name for one in fewer.groups} < {one.name for one in found.groups}


class Named(OrderedDict[str, Tensor]):
    """As the results of some libraries: a dict of its own class."""


torch.utils._pytree.register_pytree_node(
    Named,
    lambda one: (list(one.values()), list(one)),
    lambda values, names: Named(zip(names, values, strict=True)),
)


class Naming(nn.Module):
    """Returns its results by name, in a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Counted()

    def forward(self, x: Tensor) -> Named:
        y = self.inner(x)
        return Named(logits=y, double=2 * y)


def test_named_results_are_found_by_name_by_number_and_by_pytrees():
    model, x = counted(Naming)
    pruned = plainly(model, x)
    assert pruned.plan.form == "program"
    found = pruned.model(x)
    assert found[0] is found.logits is found["logits"] is found[:1][0] is found.to_tuple()[0]
    assert found[-1] is found.double
    with pytest.raises(AttributeError):
        _ = found.missing
    leaves, spec = torch.utils._pytree.tree_flatten(found)
    assert len(leaves) == 2
    assert torch.utils._pytree.tree_unflatten(leaves, spec) == found
    exported = torch.export.export(pruned.model, (x,)).module()(x)
    assert torch.equal(exported.logits, found.logits)


def test_a_program_is_pruned_again():
    model, x = counted(Naming)
    once = plainly(model, x)
    twice = plainly(once.model, x)
    assert twice.report.after.params < once.report.after.params
    found = twice.model(x)
    torch.testing.assert_close(found.logits, masked(model, x, twice)(x)["logits"])


@pytest.mark.parametrize(
    "name",
    [
        "aten.from_file.default",
        "aten.set_.source_Tensor",
        "aten.relu_.default",
        "aten.add.out",
        "aten._print.default",
        "aten._unsafe_index.Tensor",
        "aten.nonzero.default",
        "aten.masked_select.default",
        "aten.repeat_interleave.Tensor",
        "aten.sym_size.int",
        "aten.to_sparse.default",
        "aten.item.default",
        "prims.device_put.default",
        "aten.meshgrid",
        "meshgrid",
    ],
)
def test_programs_hold_nothing_but_functions_of_tensors(name):
    with pytest.raises(ArtifactError, match="operator"):
        resolve(name)


@pytest.mark.parametrize(
    "name", ["aten.kron.default", "aten.vander.default", "aten.linalg_pinv.default", "getitem"]
)
def test_functions_of_tensors_need_no_rule(name):
    assert resolve(name) is not None


def test_a_program_refuses_sizes_that_stand_in_it_as_numbers():
    class Averaged(nn.Module):
        """Its length is a number of the trace."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)
            self.scale = nn.Parameter(torch.rand(16, 1) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            h = F.linear(x, self.first.weight * self.scale, self.first.bias)
            return self.last(h.relu().sum(1) / x.shape[1])

    pruned = bequest.prune(Averaged().eval(), torch.zeros(2, 7, 5), restorer="none")
    assert pruned.plan.form == "program"
    assert pruned.model(torch.randn(3, 7, 5)).shape == (3, 3)
    for shape in ((2, 14, 5), (2, 7, 4), (7, 5)):
        with pytest.raises(UsageError, match=r"expected an input of the shape \(2, 7, 5\), at any"):
            pruned.model(torch.randn(shape))


class Begun(nn.Module):
    """A recurrent layer, which takes no two types, and a first state of the code's own making."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.LSTM(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x)[0].reshape(-1, 8))


class Rounded(nn.Module):
    """Asks for half precision, and for a number before its tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, times: float, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)).half().float() * times)


class Literal(nn.Module):
    """Its code says how wide it is, so that it becomes a program."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)).reshape(-1, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("given", [None, torch.float32, "own"])
def test_programs_in_half_precision_are_restored_over_what_is_walked_in_single(dtype, given):
    model, x = Literal().to(dtype).eval(), torch.randn(40, 5)
    data = None if given is None else [x.to(dtype if given == "own" else given)]
    restorer = Regression(images=16, inversion=0, refine=0) if given is None else "regression"
    pruned = bequest.prune(
        model, x.to(dtype), 0.5, restorer=restorer, data=data, round_to=1, progress=False
    )
    assert (pruned.plan.form, pruned.model(x.to(dtype)).dtype) == ("program", dtype)
    assert {one.restored_by for one in pruned.plan.groups} == {"regression"}


def test_programs_in_half_precision_and_networks_that_ask_for_it_are_tried_out():
    model, x = Begun().bfloat16().eval(), torch.randn(4, 2, 5).bfloat16()
    pruned = plainly(model, x)
    assert pruned.plan.form == "program"
    assert pruned.model(x).dtype == torch.bfloat16
    assert plainly(Rounded().eval(), (2.0, torch.randn(6, 5))).plan.groups

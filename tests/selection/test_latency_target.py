"""A target of latency is met by real cuts, judged by whatever clock is given."""

from __future__ import annotations

import pytest
import torch

import bequest
from bequest.errors import UsageError
from bequest.measure.cost import cost
from bequest.measure.latency import Latency
from bequest.selection.targets import latency as latency_target
from bequest.selection.targets.latency import TOLERANCE
from tests.networks import Plain, randomise

EXAMPLE = torch.zeros(1, 3, 8, 8)


def clock(fixed=0.0):
    """A clock on which a network takes a microsecond per multiply-accumulate, and a fixed time."""
    calls = []

    def timer(models, inputs):
        calls.append(models)
        times = [fixed + cost(model, inputs).macs / 1e3 for model in models]
        return [Latency(ms, ms, ms, 1, 1, "fake") for ms in times]

    timer.calls = calls
    return timer


def pruned_to(target, timer, monkeypatch, **options):
    """``bequest.prune`` with that clock in place of the real one."""
    monkeypatch.setattr(latency_target, "interleaved", timer)
    model = randomise(Plain())
    return model, bequest.prune(model, EXAMPLE, target=target, **options)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_the_share_of_time_is_met_and_recorded(share, monkeypatch):
    timer = clock()
    model, pruned = pruned_to(
        f"latency:{share}", timer, monkeypatch, restorer="lbyl", round_to=1, groups="all"
    )
    found = cost(pruned.model, EXAMPLE).macs / cost(model, EXAMPLE).macs
    assert abs(found - share) <= TOLERANCE
    timed = pruned.plan.recipe["timed"]
    assert timed["pruned_ms"] / timed["dense_ms"] == pytest.approx(found)
    assert timed["device"] == "fake"
    assert pruned.plan.recipe["target"] == f"latency:{share:g}"
    assert 2 <= len(timer.calls) <= latency_target.STEPS
    weights = {dense.conv1.weight.data_ptr() for dense, _ in timer.calls}
    assert weights == {model.conv1.weight.data_ptr()}
    assert all(dense is not model for dense, _ in timer.calls)  # a copy that shares the weights


def test_it_is_saved_with_the_plan(monkeypatch, tmp_path):
    _, pruned = pruned_to("latency:0.5", clock(), monkeypatch, restorer="none", round_to=1)
    pruned.save(tmp_path / "out")
    loaded = bequest.load(tmp_path / "out", Plain())
    torch.testing.assert_close(loaded.eval()(EXAMPLE), pruned.model.eval()(EXAMPLE))
    assert '"pruned_ms"' in (tmp_path / "out" / "plan.json").read_text()


def test_widths_that_skip_the_target_stay_below_it(monkeypatch):
    model, pruned = pruned_to("latency:0.9", clock(), monkeypatch, restorer="none", round_to=8)
    assert cost(pruned.model, EXAMPLE).macs / cost(model, EXAMPLE).macs <= 0.9 + TOLERANCE


def test_a_share_out_of_reach_says_what_was_reached(monkeypatch):
    with pytest.raises(UsageError, match=r"found 0\.\d+ at best: .* ms with every group"):
        pruned_to("latency:0.1", clock(fixed=1e3), monkeypatch, restorer="none")


def test_without_groups_there_is_nothing_to_time():
    with pytest.raises(UsageError, match="no group of this network can lose channels"):
        bequest.prune(torch.nn.Linear(3, 2), torch.zeros(1, 3), target="latency:0.5")


def test_another_runtime_measures(monkeypatch):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed; bequest[onnx] brings it")
    pytest.importorskip("onnxruntime", reason="needs bequest[onnx]")

    def timed(passes, repeats, warmup, device):
        (dense,), (narrow,) = (run_once() for run_once in passes)
        assert dense.shape == narrow.shape == (1, 5)
        return [Latency(ms, ms, ms, repeats, 1, device) for ms in (1.0, 0.5)]

    monkeypatch.setattr(latency_target, "timed_in_turn", timed)
    options = {"restorer": "none", "round_to": 1, "progress": False}
    pruned = bequest.prune(randomise(Plain()), EXAMPLE, target="latency:0.5@onnx", **options)
    timing = pruned.plan.recipe["timed"]
    assert (timing["device"], timing["pruned_ms"]) == ("cpu (onnxruntime)", 0.5)
    assert pruned.plan.recipe["target"] == "latency:0.5@onnx"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("latency:0.5@tensorrt", "runtimes torch, onnx, found 'tensorrt'"),
        ("macs:0.5@onnx", "expected KIND:SHARE"),
        ("latency:0.5@", "runtimes torch, onnx, found ''"),
    ],
)
def test_runtimes_that_are_none_are_refused(target, message):
    with pytest.raises(UsageError, match=message):
        bequest.prune(randomise(Plain()), EXAMPLE, target=target)

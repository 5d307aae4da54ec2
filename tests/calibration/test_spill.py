"""What doesn't fit into memory comes back from the folder bit by bit, and the folder goes away."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
import torch

import bequest
from bequest.calibration import samples, spill
from bequest.calibration.spill import Mapped, Spilled, Store
from bequest.errors import BequestError
from bequest.restorers import Regression
from tests.networks import (
    NETWORKS,
    DepthwiseTail,
    Residual,
    SplitConcat,
    UnknownOperator,
    randomise,
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The place for temporary folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


VALUES = {
    "plain": torch.randn(3, 4, 5),
    "double": torch.randn(7, dtype=torch.float64),
    "half": torch.randn(5, 2).half(),
    "bfloat16": torch.randn(5, 2).bfloat16(),
    "bool": torch.tensor([True, False, True]),
    "integers": torch.arange(12).view(3, 4),
    "complex": torch.randn(4, dtype=torch.complex64),
    "conjugate": torch.randn(4, dtype=torch.complex64).conj(),
    "transposed": torch.randn(3, 4, 5).transpose(0, 2),
    "slice": torch.randn(6, 8)[1:4, ::2],
    "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "expanded": torch.randn(3, 1).expand(3, 100),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_tensor_comes_back_with_type_and_strides(value, folder):
    found = Spilled(value.resolve_conj(), folder / "0").read()
    assert torch.equal(found, value)
    assert (found.dtype, found.stride()) == (value.dtype, value.resolve_conj().stride())


def test_values_beyond_the_limit_lie_in_files_until_they_are_dropped(folder):
    one = 100 * 4
    with Store(2 * one) as store:
        first, second = (
            store.keep(torch.full((100,), float(i)) for i in range(start, start + 3))
            for start in (0, 3)
        )
        assert [isinstance(item, Spilled) for item in first.items] == [False, False, True]
        assert all(isinstance(item, Spilled) for item in second.items)
        assert [float(chunk[0]) for chunk in (*first, *second)] == [0, 1, 2, 3, 4, 5]
        assert len(list(folder.rglob("*"))) == 1 + 4
        store.drop(second)
        store.drop(second)
        assert len(list(folder.rglob("*"))) == 1 + 1
        store.drop(first)
        assert store.held == 0
        third = store.keep([[torch.zeros(100), torch.ones(150)]])  # a split: one goes, one stays
        assert [isinstance(item, Spilled) for item in third.items[0]] == [False, True]
        assert float(third[0][1].sum()) == 150
    assert not list(folder.iterdir())


def test_no_folder_where_everything_fits(folder):
    with Store(1000) as store:
        store.keep([torch.zeros(10)])
        assert not list(folder.iterdir())


def test_the_folder_is_removed_when_a_walk_fails(folder, monkeypatch):
    monkeypatch.setattr(spill, "limit_on", lambda _: 0)
    met = []

    def fail(*_, **__):
        met.extend(folder.glob("bequest-*"))
        raise RuntimeError("no")

    monkeypatch.setattr("bequest.restorers.regression.solve", fail)
    network = randomise(Residual())
    with pytest.raises(RuntimeError, match="no"):
        bequest.prune(network, torch.zeros(1, 3, 8, 8), 0.5, restorer=Regression(images=8))
    assert met
    assert not list(folder.glob("bequest-*"))


def test_a_full_disk_is_reported_with_what_to_do(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spill, "_bytes", lambda flat: type("Full", (), {"tofile": full})())
    expected = r"400 bytes .* No space left.*TMPDIR"
    with Store(0) as store, pytest.raises(BequestError, match=expected):
        store.keep([torch.zeros(100)])


def test_a_file_that_was_cut_short_is_refused(folder):
    spilled = Spilled(torch.zeros(100), folder / "0")
    np.zeros(10, np.uint8).tofile(spilled.path)
    with pytest.raises(BequestError, match="expected 400 bytes, found 10"):
        spilled.read()


def test_mapped_values_are_computed_when_asked_for():
    asked = []
    values = Mapped(lambda i: asked.append(i) or 10 * i, 3)
    assert not asked
    assert list(values) == [0, 10, 20]
    assert asked == [0, 1, 2]
    with pytest.raises(IndexError):
        values[3]


@pytest.mark.parametrize(
    "network", [SplitConcat, Residual, DepthwiseTail, UnknownOperator], ids=lambda n: n.__name__
)
def test_the_pruned_network_is_the_same_to_the_bit(network, monkeypatch):
    monkeypatch.setattr(samples, "CHUNK", 8)
    model, x = randomise(network()), torch.randn(NETWORKS[network])
    found = []
    for limit in (2**30, 10_000):
        monkeypatch.setattr(spill, "limit_on", lambda _, limit=limit: limit)
        pruned = bequest.prune(
            model, x, 0.5, groups="all", restorer=Regression(images=16), round_to=1
        )
        found.append(pruned.model.state_dict())
    spilled = found[1]
    assert all(torch.equal(spilled[name], tensor) for name, tensor in found[0].items())


def test_a_device_holds_half_of_what_it_has_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6000, 80_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3000)
    assert spill.limit_on(torch.device("cuda", 0)) == 4000
    monkeypatch.setattr(spill, "free_memory", lambda: 1000)
    assert spill.limit_on(torch.device("cpu")) == 500
    for free, expected in ((2 * spill.LIMIT, spill.LIMIT), (80 * spill.LIMIT, 10 * spill.LIMIT)):
        monkeypatch.setattr(spill, "free_memory", lambda free=free: free)
        assert spill.limit_on(torch.device("cpu")) == expected
    monkeypatch.setattr(spill, "free_memory", lambda: None)
    assert spill.limit_on(torch.device("cpu")) == spill.LIMIT


def test_no_more_is_held_when_others_have_taken_the_memory(monkeypatch, folder):
    free = iter([1000, 500, 499, 900])
    monkeypatch.setattr(spill, "free_memory", lambda: next(free))
    with Store(1000) as store:
        kept = store.keep(torch.zeros(10) for _ in range(4))
        assert [isinstance(one, Spilled) for one in kept.items] == [False, False, True, False]


def test_the_system_is_asked_what_is_free_now_and_then(monkeypatch, folder):
    asked = []
    monkeypatch.setattr(spill, "free_memory", lambda: asked.append(1))
    with Store(spill.LOOKS * 400) as store:
        store.keep(torch.zeros(10) for _ in range(64))  # of 40 bytes
    assert len(asked) == 6


def test_what_a_walk_over_large_images_holds_stays_within_the_limit(monkeypatch):
    limit, held, spilled = 2**18, [], []
    put = Store._put

    def watch(store, value):
        kept = put(store, value)
        held.append(store.held)
        spilled.append(isinstance(kept, Spilled))
        return kept

    monkeypatch.setattr(Store, "_put", watch)
    monkeypatch.setattr(spill, "limit_on", lambda _: limit)
    model = bequest.zoo.create("resnet56").eval()
    pruned = bequest.prune(
        model,
        torch.zeros(1, 3, 32, 32),
        {"layer3.8.conv1": 0.5},
        restorer=Regression(images=4, inversion=0),
    )
    assert pruned.plan.groups[0].kept == 32
    assert any(spilled)
    assert limit / 2 < max(held) <= limit

from __future__ import annotations

import pytest
import torch
from torch import nn

from bequest.artifact.fingerprint import fingerprint, stored_tensors
from bequest.errors import ModelError
from tests.artifact.networks import GroupedTail, OddBuffers, TiedEmbedding


def test_values_modes_and_dtypes_do_not_count():
    model = GroupedTail()
    assert fingerprint(model) == fingerprint(GroupedTail().half().eval())


def test_the_order_of_registration_does_not_count():
    one, other = nn.Module(), nn.Module()
    one.a, one.b = nn.Linear(2, 3), nn.Linear(3, 2)
    other.b, other.a = nn.Linear(3, 2), nn.Linear(2, 3)
    other.b.weight, one.b.weight = other.a.weight, one.a.weight
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.Linear(3, 4), nn.Linear(4, 3)),
        (nn.Linear(3, 4), nn.Linear(3, 4, bias=False)),
        (nn.Sequential(nn.Linear(3, 4)), nn.Linear(3, 4)),
        (nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False)),
        (TiedEmbedding(tied=True), TiedEmbedding(tied=False)),
    ],
)
def test_names_shapes_and_ties_count(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_buffers_that_no_state_dict_holds_do_not_count():
    model = OddBuffers()
    before = fingerprint(model)
    model.register_buffer("cache", torch.zeros(3), persistent=False)
    assert fingerprint(model) == before
    model.register_buffer("kept", torch.zeros(3))
    assert fingerprint(model) != before


def test_stored_tensors_are_the_state_dict_with_each_tensor_once():
    model = TiedEmbedding()
    assert list(stored_tensors(model)) == ["embed.weight", "norm.weight", "norm.bias"]
    assert stored_tensors(model)["embed.weight"] is model.head.weight
    plain = GroupedTail()
    assert stored_tensors(plain).keys() == plain.state_dict().keys()


def test_a_lazy_module_is_refused():
    with pytest.raises(ModelError, match=r"'weight' has no shape yet"):
        fingerprint(nn.LazyLinear(3))

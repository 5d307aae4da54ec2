import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bequest.errors import ArtifactError
from bequest.sparse.bits import pack, packed_size, unpack
from bequest.sparse.encoding import TensorSpec, decode, encode, stored_bytes

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def bits_of(tensor):
    return tensor.reshape(-1).view(torch.uint8)


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 40), seed=st.integers(0, 1000))
def test_bits_come_back(count, seed):
    truths = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(truths)
    assert packed.shape == (packed_size(count),)
    assert torch.equal(unpack(packed, (count,)), truths)
    assert [int(packed[i // 8]) >> (i % 8) & 1 for i in range(count)] == truths.int().tolist()


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 6), min_size=0, max_size=4),
    zeros=st.floats(0, 1),
)
def test_tensors_come_back_to_the_bit(dtype, shape, zeros):
    tensor = torch.randn(shape).to(dtype)
    flat = tensor.view(-1)
    flat[torch.rand(len(flat)) < zeros] = 0
    if len(flat) > 3:
        flat[:4] = torch.tensor([-0.0, float("nan"), float("inf"), 0.0])
    tensors = {"some.weight": tensor}
    written = encode(tensors)
    assert (
        sum(t.nbytes for t in written.values()) == stored_bytes(tensors.values()) <= tensor.nbytes
    )
    found = decode(written, {"some.weight": TensorSpec.of(tensor)})["some.weight"]
    assert found.dtype == dtype
    assert found.shape == tensor.shape
    assert torch.equal(bits_of(found), bits_of(tensor))


def test_only_what_gets_smaller_is_taken_apart():
    dense, sparse = torch.randn(64), torch.zeros(64)
    counts = torch.zeros(64, dtype=torch.int64)
    assert encode({"a": dense, "c": counts}).keys() == {"a", "c"}
    assert encode({"b": sparse}).keys() == {"b.places", "b.values"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.update({"a.places": w["a.places"][:-1]}),
            r"'a.places': expected uint8 \(2,\)",
        ),
        (lambda w: w.update({"a.places": w["a.places"].float()}), "expected uint8"),
        (lambda w: w.update({"a.values": w["a.values"][:-1]}), r"expected float32 \(2,\) as its"),
        (lambda w: w.update({"a.values": w["a.values"].double()}), "found float64"),
        (lambda w: w["a.places"].bitwise_or_(128), "as its places say"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    tensor = torch.zeros(10)
    tensor[2:4] = 1
    written = encode({"a": tensor})
    change(written)
    with pytest.raises(ArtifactError, match=message):
        decode(written, {"a": TensorSpec.of(tensor)})

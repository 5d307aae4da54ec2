"""Large tensors are shared out between slices, each of a bounded size."""

from __future__ import annotations

import pytest
import torch

from bequest.execution import spans


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 40, 1), (100, 1, 2), (3, 0, 2), (0, 4, 4)])
@pytest.mark.parametrize("limit", [8, 100, 10**6])
def test_slices_cover_a_dimension_once_and_hold_no_more_than_they_may(
    shape, dim, limit, monkeypatch
):
    monkeypatch.setattr(spans, "AT_ONCE", limit)
    tensor = torch.arange(torch.Size(shape).numel()).view(shape)
    parts = [tensor.movedim(dim, 0)[one] for one in spans.spans(tensor, dim)]
    joined = torch.cat(parts) if parts else tensor.movedim(dim, 0)
    assert torch.equal(joined, tensor.movedim(dim, 0))
    for part in parts:  # one index alone may be larger
        assert len(part) == 1 or 8 * part.numel() <= limit


def test_small_tensors_are_read_at_once():
    assert list(spans.spans(torch.zeros(64, 64))) == [slice(0, 64)]

"""What modules write down about their widths follows the channels that leave."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import bequest


@pytest.mark.parametrize(
    ("norm", "attributes"),
    [
        (nn.InstanceNorm2d(16), {"num_features": 8}),
        (nn.BatchNorm2d(16, affine=False, track_running_stats=False), {"num_features": 8}),
        (nn.GroupNorm(16, 16, affine=False), {"num_channels": 8, "num_groups": 8}),
        (nn.GroupNorm(2, 16, affine=False), {"num_channels": 8, "num_groups": 2}),
        (nn.LayerNorm((16, 4, 4), elementwise_affine=False), {"normalized_shape": (8, 4, 4)}),
        (nn.RMSNorm((16, 4, 4), elementwise_affine=False), {"normalized_shape": (8, 4, 4)}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_norm_without_tensors(norm, attributes):
    model = nn.Sequential(nn.Conv2d(3, 16, 1), norm, nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    x = torch.randn(2, 3, 4, 4)
    result = bequest.prune(model, x, 0.5, restorer="none", progress=False)
    assert result.plan.form == "module"
    assert {name: getattr(result.model[1], name) for name in attributes} == attributes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result.model(x)

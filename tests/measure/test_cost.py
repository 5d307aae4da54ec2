import pytest
import torch
from torch import nn

import bequest
from bequest import zoo
from bequest.measure import cost


def test_counts_of_a_small_network_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
    )
    for tensor in model.state_dict().values():  # zeros are stored as less
        tensor.fill_(1)
    found = cost(model, torch.randn(2, 3, 8, 8))
    assert found.macs == 2 * (8 * 27 * 64 + 8 * 9 * 16 + 128 * 10)
    assert found.params == 8 * 27 + 16 + (8 * 9 + 8) + 1290
    assert found.bytes == 4 * (found.params + 16) + 8  # running statistics, int64 step counter


@pytest.mark.parametrize(
    ("name", "giga_macs"), [("resnet18", 1.81), ("resnet50", 4.09), ("mobilenetv2", 0.30)]
)
def test_macs_are_the_published_ones(name, giga_macs):
    found = cost(zoo.create(name), torch.randn(1, 3, 224, 224))
    assert found.macs / 1e9 == pytest.approx(giga_macs, abs=0.005)


def test_attention_is_counted():
    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert cost(Attention(), torch.randn(1, 2, 16, 8)).macs == 2 * (2 * 16 * 16 * 8)


def test_shared_parameters_count_once_and_unsaved_buffers_not():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    model.register_buffer("cache", torch.ones(100), persistent=False)
    found = cost(model, torch.randn(1, 4))
    assert (found.params, found.bytes, found.macs) == (16, 64, 32)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost(model, torch.randn(3, 4))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_report_of_pruning_counts_the_bytes_that_are_saved(tmp_path):
    """Pruning counts on tensors without data, which says nothing of their zeros."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        model[0].weight[:, 8:] = 0
    x = torch.zeros(1, 64)

    pruned = bequest.prune(model, x, 0.5, restorer="none", progress=False)
    pruned.save(tmp_path / "out")

    assert pruned.report.before == cost(model, x)
    assert pruned.report.after == cost(pruned.model, x)
    written = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert 0 < written - pruned.report.after.bytes < 600  # the file's own names and shapes


class ViewOfAParameter(nn.Module):
    """Calls a layer on a row of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(3, 4))
        self.layer = nn.Linear(4, 5)

    def forward(self, x):
        return self.layer(x) + self.layer(self.table[:1])


@pytest.mark.parametrize("wanted", [True, False])
def test_layers_called_on_views_of_parameters_are_counted(wanted):
    model = ViewOfAParameter().requires_grad_(wanted)
    assert cost(model, torch.randn(2, 4, requires_grad=wanted)).macs == 2 * 20 + 20
    assert all(parameter.requires_grad == wanted for parameter in model.parameters())


def test_counting_hooks_no_module_of_the_process():
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(len(nn.modules.module._global_forward_hooks))
            return x

    cost(Watching(), torch.randn(1))
    assert seen == [0]

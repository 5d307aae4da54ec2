"""Networks of many libraries, as they are: pruned, run, trained, reloaded, and exact."""

import shutil

import pytest
import torch

import bequest
from tests.architectures.examination import exactness, halve
from tests.architectures.networks import NAMES, library_of, subject
from tests.architectures.subject import Subject, outputs
from tests.timm_support import require

QUICK = ("resnet18", "mixer_s16_224", "hf-vit", "hf-convnext", "hf-bert", "hf-llama")
"""Tried on every run of the tests; the others by ``make test-architectures``."""


def installed(name: str) -> Subject:
    """The network, or a skip where its library is not installed."""
    library = library_of(name)
    if library in ("transformers", "torch"):
        pytest.importorskip(library, reason=f"{library} makes the network")
    else:  # they import torchvision
        require(library)
    return subject(name)


every_network = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.architectures])
        for name in NAMES
    ],
)


@every_network
def test_half_of_the_width_is_pruned(name):
    found = halve(installed(name))
    assert found.runs
    assert found.learns
    assert found.reloads
    assert found.groups
    assert found.params < 1
    assert found.macs < 1


@every_network
def test_duplicates_and_dead_units_leave_without_a_trace(name):
    found = exactness(installed(name))
    assert found.pruned
    assert found.strangers == 0
    assert found.effect > 1e-2, "planting changed nothing, so nothing was tested"
    assert found.change < 1e-4


@pytest.mark.architectures
@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a compiler"
)
@pytest.mark.parametrize("name", ["resnet18", "hf-bert"])
def test_torch_compile_of_a_pruned_network(name):
    one = installed(name)
    pruned = bequest.prune(one.trained(), one.example, 0.5, restorer="lbyl", progress=False).model
    with torch.no_grad():
        expected, found = (outputs(model, one) for model in (pruned, torch.compile(pruned)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))

import time

import pytest
import torch
from torch import nn

from bequest.errors import UsageError
from bequest.measure import latency


class Sleeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.threads = set()

    def forward(self, x):
        self.calls += 1
        self.threads.add(torch.get_num_threads())
        time.sleep(0.02 if self.calls > 2 else 0.2)
        return x


def test_times_are_those_of_the_passes_after_warmup():
    model = Sleeps()
    found = latency(model, torch.ones(1), repeats=5, warmup=2)
    assert model.calls == 7
    assert 20 <= found.p10 <= found.median <= found.p90 < 200
    assert (found.repeats, found.device) == (5, "cpu")


def test_threads_are_fixed_inside_and_restored():
    before = torch.get_num_threads()
    for threads in (1, 2):
        model = Sleeps()
        assert (
            latency(model, torch.ones(1), repeats=1, warmup=0, threads=threads).threads == threads
        )
        assert model.threads == {threads}
        assert torch.get_num_threads() == before


def test_mode_and_threads_are_restored_after_an_error():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    model, before = Fails(), torch.get_num_threads()
    with pytest.raises(UsageError, match=r"Fails does not run on the inputs.*: no"):
        latency(model, torch.ones(1), threads=before + 1)
    assert model.training
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"warmup": -1}, {"threads": 0}])
def test_wrong_calls_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        latency(nn.Identity(), torch.ones(1), **wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_waits_for_the_device():
    model = nn.Linear(4096, 4096).cuda()
    found = latency(model, torch.randn(8192, 4096, device="cuda"), repeats=5)
    # 2.7e11 operations take longer than launching the kernel, which is all a bare clock would see.
    assert found.median > 0.1

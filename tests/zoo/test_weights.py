import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bequest import zoo
from bequest.errors import ArtifactError, UsageError
from bequest.zoo import load_weights


class Small(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x):
        return self.bn(self.conv(x))


class RunsWhenLoaded:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_round_trip_by_name(tmp_path, suffix):
    dense, fresh = Small(), Small()
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(dense.state_dict(), path)
    load_weights(fresh, path)
    assert same(dense.state_dict(), fresh.state_dict())


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_wrapped_and_prefixed_checkpoints(tmp_path, key):
    dense, fresh = Small(), Small()
    prefixed = {f"module.{name}": value for name, value in dense.state_dict().items()}
    torch.save({key: prefixed, "epoch": 7}, tmp_path / "c.pth")
    load_weights(fresh, tmp_path / "c.pth")
    assert same(dense.state_dict(), fresh.state_dict())


def test_old_files_without_step_counters(tmp_path):
    old = {k: v for k, v in Small().state_dict().items() if "num_batches" not in k}
    save_file(old, tmp_path / "w.safetensors")
    load_weights(Small(), tmp_path / "w.safetensors")


def test_shared_tensor_under_one_of_its_names(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    dense, fresh = tied(), tied()
    given = {k: v for k, v in dense.state_dict().items() if k != "1.weight"}
    save_file(given, tmp_path / "w.safetensors")
    load_weights(fresh, tmp_path / "w.safetensors")
    assert same(dense.state_dict(), fresh.state_dict())
    assert fresh[1].weight is fresh[0].weight


def test_half_precision_file_into_float32_network(tmp_path):
    save_file(Small().half().state_dict(), tmp_path / "w.safetensors")
    fresh = Small()
    load_weights(fresh, tmp_path / "w.safetensors")
    assert fresh.conv.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sd: sd.pop("conv.bias"), "missing: conv.bias"),
        (lambda sd: sd.update(extra=torch.ones(1)), "unexpected: extra"),
        (
            lambda sd: sd.update({"bn.bias": torch.ones(5)}),
            r"bn.bias \(expected \(4,\), found \(5,",
        ),
        (lambda sd: sd["conv.weight"].view(-1)[3:4].fill_(float("nan")), "conv.weight holds NaN"),
        (lambda sd: sd["bn.running_var"][:1].fill_(float("inf")), "bn.running_var holds NaN"),
        (lambda sd: sd.update({"bn.bias": torch.ones(4, dtype=torch.int8)}), "bn.bias: expected"),
        (lambda sd: sd.update({"bn.bias": torch.ones(4).to_sparse()}), "sparse"),
        (lambda sd: sd.update({"bn.bias": torch.ones(4, dtype=torch.complex64)}), "complex"),
    ],
)
def test_tensors_that_do_not_fit_leave_the_network_untouched(tmp_path, change, message):
    given = {name: value.clone() for name, value in Small().state_dict().items()}
    change(given)
    torch.save(given, tmp_path / "w.pth")
    fresh = Small()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ArtifactError, match=message):
        load_weights(fresh, tmp_path / "w.pth")
    assert same(before, fresh.state_dict())


def test_long_lists_of_names_are_shortened(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ArtifactError, match="and 3 more; unexpected: a"):
        load_weights(Small(), tmp_path / "w.pth")


def test_files_that_need_pickle_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Small(), "model.pth")
    torch.save({"state_dict": RunsWhenLoaded()}, "evil.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps({"x": RunsWhenLoaded()}))
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), "script.pt")
    for name in ("model.pth", "evil.pth", "raw.pth", "script.pt"):
        with pytest.raises(ArtifactError, match=r"would run code when loaded.*save_file"):
            load_weights(Small(), name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_files(tmp_path, suffix, share):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(Small().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ArtifactError, match=r"truncated|not a readable"):
        load_weights(Small(), path)


def test_other_contents_are_refused(tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(ArtifactError, match=r"no file of torch\.save"):
        load_weights(Small(), tmp_path / "page.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ArtifactError, match=r"expected a state dict.*found list"):
        load_weights(Small(), tmp_path / "list.pth")
    torch.save({"lr": 0.1}, tmp_path / "other.pth")
    with pytest.raises(ArtifactError, match="other things: lr"):
        load_weights(Small(), tmp_path / "other.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 10**6)
    with pytest.raises(ArtifactError, match="compressed"):
        load_weights(Small(), tmp_path / "bomb.pth")


def test_absent_file_and_unknown_suffix_are_wrong_calls(tmp_path):
    with pytest.raises(UsageError, match="found nothing"):
        load_weights(Small(), tmp_path / "absent.safetensors")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(UsageError, match=r"weights\.h5"):
        load_weights(Small(), tmp_path / "weights.h5")


def test_real_weights_of_another_network_are_refused(shared):
    path = shared / "weights" / "resnet56_cifar10.safetensors"
    with pytest.raises(ArtifactError, match=r"missing|unexpected"):
        load_weights(zoo.create("resnet44"), path)
    with pytest.raises(ArtifactError, match=r"shapes differ: fc\.bias"):
        load_weights(zoo.create("resnet56", num_classes=100), path)

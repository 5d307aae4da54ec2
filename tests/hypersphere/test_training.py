import json
import struct
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from bequest.errors import ArtifactError, DataError, UsageError
from bequest.hypersphere import Recipe, penalty, train
from bequest.hypersphere.run import CHECKPOINT, LOG, STOPPED, NonFiniteLossError, Run
from bequest.measure import evaluate
from tests.hypersphere.networks import Net

RECIPE = Recipe(epochs=3, batch_size=32, augment=("crop", "flip"), lr=0.05)


class KilledError(Exception):
    pass


def killed_after(epoch):
    def report(record):
        if record.epoch == epoch:
            raise KilledError

    return report


class WithDropout(Net):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        return self.head(self.drop((self.norm(self.first(x)).relu()).mean((2, 3))))


def equal(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_it_learns_and_prepares_for_pruning(images, tmp_path):
    model = Net()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    recipe = replace(RECIPE, epochs=15, augment=(), penalty=1.0, seed=3)
    trained = train(model, images, recipe, tmp_path / "run", validation=images)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert trained.is_main
    assert [record.epoch for record in trained.history] == list(range(1, 16))
    assert trained.history[-1].top1 == evaluate(trained.model, images).top1 > 90
    assert penalty(trained.model, 0.5, "two-term") < 0.1 * penalty(model, 0.5, "two-term")
    lines = (tmp_path / "run" / LOG).read_text().splitlines()
    assert json.loads(lines[-1])["loss"] == trained.history[-1].loss


@pytest.mark.parametrize("network", [Net, WithDropout])
@pytest.mark.parametrize("hyperspherical", [True, False])
def test_an_interrupted_run_ends_as_one_that_was_not(images, tmp_path, network, hyperspherical):
    model = network()
    recipe = replace(RECIPE, hyperspherical=hyperspherical)
    whole = train(model, images, recipe, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(model, images, recipe, tmp_path / "run", report=killed_after(1))
    # Another start, to show that everything comes from the checkpoint.
    resumed = train(network(), images, recipe, tmp_path / "run", resume=True)
    assert equal(resumed.model, whole.model)
    assert [r.loss for r in resumed.history] == [r.loss for r in whole.history]
    assert [r.penalty for r in resumed.history] == [r.penalty for r in whole.history]


def test_a_run_goes_on_from_the_middle_of_an_epoch(images, tmp_path, monkeypatch):
    model = Net()
    whole = train(model, images, RECIPE, tmp_path / "whole")
    step = Run._step

    def dies_at_the_sixth(self, x, y):
        if self.progress.step == 5:
            raise KilledError
        step(self, x, y)

    monkeypatch.setattr(Run, "_step", dies_at_the_sixth)
    with pytest.raises(KilledError):
        train(model, images, RECIPE, tmp_path / "run", checkpoint_every=2)
    monkeypatch.undo()
    with safe_open(tmp_path / "run" / CHECKPOINT, framework="pt") as file:
        assert json.loads(file.metadata()["bequest"])["progress"]["step"] == 4
    resumed = train(model, images, RECIPE, tmp_path / "run", resume=True)
    assert equal(resumed.model, whole.model)
    assert [r.loss for r in resumed.history] == [r.loss for r in whole.history]


def test_a_finished_run_resumes_to_the_same(images, tmp_path):
    whole = train(Net(), images, RECIPE, tmp_path / "run")
    again = train(Net(), images, RECIPE, tmp_path / "run", resume=True)
    assert equal(again.model, whole.model)
    assert again.history == whole.history


def test_a_seed_is_a_run(images, tmp_path):
    model = Net()
    first, second, other = (
        train(model, images, replace(RECIPE, seed=seed), tmp_path / name).model
        for name, seed in (("first", 1), ("second", 1), ("other", 2))
    )
    assert equal(first, second)
    assert not equal(first, other)


def test_mixed_precision_stays_near(images, tmp_path):
    model = Net()
    exact = train(model, images, RECIPE, tmp_path / "exact")
    mixed = train(model, images, replace(RECIPE, precision="bf16-mixed"), tmp_path / "mixed")
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters())
    assert mixed.history[-1].loss != exact.history[-1].loss
    assert mixed.history[-1].loss == pytest.approx(exact.history[-1].loss, rel=0.05)


def test_a_loss_that_is_not_finite_stops_with_a_saved_state(images, tmp_path):
    class Explodes(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x) / (self.calls < 5)

    run = tmp_path / "run"
    with pytest.raises(NonFiniteLossError, match=r"at step 5 of 9.*lower learning rate"):
        train(Explodes(), images, RECIPE, run)
    with safe_open(run / STOPPED, framework="pt") as file:
        assert json.loads(file.metadata()["bequest"])["progress"]["step"] == 4
        assert all(file.get_tensor(name).isfinite().all() for name in file.keys())  # noqa: SIM118
    with safe_open(run / CHECKPOINT, framework="pt") as file:
        assert json.loads(file.metadata()["bequest"])["progress"]["step"] == 3


def test_resuming_another_run_is_refused(images, tmp_path):
    run = tmp_path / "run"
    train(Net(), images, RECIPE, run)
    before = (run / CHECKPOINT).read_bytes()
    for recipe, message in (
        (replace(RECIPE, lr=0.01), r"lr \(then 0.05, now 0.01\)"),
        (replace(RECIPE, sparsity=0.7), r"sparsity \(then 0.5, now 0.7\)"),
        (replace(RECIPE, epochs=5), r"epochs \(then 3, now 5\)"),
    ):
        with pytest.raises(UsageError, match=message):
            train(Net(), images, recipe, run, resume=True)
    other = Net()
    other.head = nn.Linear(8, 5)
    with pytest.raises(UsageError, match="architecture"):
        train(other, images, RECIPE, run, resume=True)
    with pytest.raises(UsageError, match=r"images \(then 96, now 64\)"):
        train(Net(), images.subset(0, 64), RECIPE, run, resume=True)
    assert (run / CHECKPOINT).read_bytes() == before
    with pytest.raises(UsageError, match="expected the checkpoint of an earlier run, found no"):
        train(Net(), images, RECIPE, tmp_path / "empty", resume=True)


def flipped(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def header_of_another_version(data):
    size = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + size].replace(b'\\"version\\": 1', b'\\"version\\": 9')
    return data[:8] + header + data[8 + size :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "no readable training checkpoint"),
        (lambda data: b"", "no readable training checkpoint"),
        (lambda data: b"{" + data[1:], "no readable training checkpoint"),
        (flipped, "the file was altered"),
        (header_of_another_version, "version: expected 1, found 9"),
    ],
)
def test_a_damaged_checkpoint_is_refused(images, tmp_path, damage, message):
    run = tmp_path / "run"
    train(Net(), images, replace(RECIPE, epochs=1), run)
    path = run / CHECKPOINT
    data = path.read_bytes()
    assert damage(data) != data
    path.write_bytes(damage(data))
    with pytest.raises(ArtifactError, match=message):
        train(Net(), images, replace(RECIPE, epochs=1), run, resume=True)


def test_images_that_do_not_fit_are_refused(images, tmp_path):
    with pytest.raises(UsageError, match="at most the 96 images, found 97"):
        train(Net(), images, replace(RECIPE, batch_size=97), tmp_path / "run")
    model = Net()
    model.head = nn.Linear(8, 3)
    with pytest.raises(DataError, match="labels 0 to 2 for a model of 3 classes, found 0 to 3"):
        train(model, images, RECIPE, tmp_path / "run")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("lr", -0.1),
        ("lr", float("inf")),
        ("momentum", 1.0),
        ("sparsity", 1.0),
        ("penalty", float("nan")),
        ("form", "square"),
        ("mask", "whole-filter"),
        ("augment", ("rotate",)),
        ("precision", "8-bit"),
        ("seed", -1),
    ],
)
def test_recipes_out_of_range_are_refused(field, value):
    with pytest.raises(UsageError, match=f"{field}: expected"):
        replace(RECIPE, **{field: value})


def test_the_learning_rate_is_one_on_the_hypersphere_and_off_it():
    plain = Recipe(epochs=1, hyperspherical=False, sparsity=0.0)
    assert Recipe(epochs=1).to_json()["lr"] == plain.to_json()["lr"] == 0.25
    assert Recipe(epochs=1, lr=0.03, warmup=0).learning_rate(0, 9) == pytest.approx(0.03)


def test_the_learning_rate_rises_and_falls_to_zero():
    recipe = Recipe(epochs=1, lr=0.1, warmup=0.1)
    rates = [recipe.learning_rate(step, 100) for step in range(100)]
    assert rates.index(max(rates)) == 10
    assert max(rates) == pytest.approx(0.1)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-4

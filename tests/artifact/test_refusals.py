"""Wrong calls and artefacts of other networks: one clear message, nothing changed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from bequest.artifact import load, load_plan, save, store
from bequest.errors import ArtifactError, ModelError, UsageError
from bequest.surgery.operation import Surgery
from tests.artifact.networks import CASES, GroupedTail, OddBuffers, TiedEmbedding, plan_of


@pytest.fixture
def pruned():
    return CASES["GroupedTail"].pruned(GroupedTail())


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path, pruned):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"expected a new or empty folder.*notes\.txt"):
        save(tmp_path, *pruned)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_artefact_is_not_overwritten(grouped):
    before = (grouped.folder / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"model\.safetensors, plan\.json"):
        save(grouped.folder, grouped.model, grouped.plan)
    assert (grouped.folder / "model.safetensors").read_bytes() == before


def test_a_file_in_place_of_the_folder(tmp_path, pruned):
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="found the file"):
        save(tmp_path / "out", *pruned)
    with pytest.raises(UsageError, match="found a file at"):
        load(tmp_path / "out", GroupedTail())
    with pytest.raises(UsageError, match="found nothing at"):
        load_plan(tmp_path / "nowhere")


def test_saving_a_model_that_the_plan_did_not_make(tmp_path, pruned):
    _, plan = pruned
    with pytest.raises(UsageError, match=r"with 3 channels in dimension 1 of 'grouped\.weight'"):
        save(tmp_path / "out", GroupedTail(), plan)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "recipe", [{"restorer": object()}, {"ratio": float("nan")}, {"x": "\x1b[2J"}, {1: {"a": {2}}}]
)
def test_a_recipe_that_json_can_not_hold(tmp_path, pruned, recipe):
    model, plan = pruned
    with pytest.raises(UsageError, match=r"expected what plan\.json can hold"):
        save(tmp_path / "a" / "out", model, dataclasses.replace(plan, recipe=recipe))
    assert list(tmp_path.iterdir()) == []


def test_an_attribute_that_no_plan_may_change_is_not_even_saved(tmp_path, pruned):
    model, plan = pruned
    wide = dataclasses.replace(plan.surgery.attributes[0], name="__class__")
    surgery = dataclasses.replace(plan.surgery, attributes=(wide,))
    with pytest.raises(UsageError, match=r"attributes\[0\]\.name: expected one of.*'__class__'"):
        save(tmp_path / "out", model, dataclasses.replace(plan, surgery=surgery))


class ExtraState(nn.Linear):
    def get_extra_state(self):
        return {"scale": 1.0}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(ExtraState(2, 2)), "'0' .ExtraState. keeps extra state"),
        (nn.Linear(2, 2, device="meta"), "safetensors can't hold"),
        (nn.Linear(2, 2, dtype=torch.complex128), "safetensors can't hold.*complex128"),
    ],
)
def test_models_that_a_tensor_file_can_not_hold(tmp_path, model, words):
    with pytest.raises(ModelError, match=words):
        save(tmp_path / "out", model, plan_of(model, Surgery((), (), ())))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fresh", "words"),
    [
        (GroupedTail, r"found type; write GroupedTail\("),
        ("GroupedTail", "found str"),
        (GroupedTail().to("meta"), "'first.weight' is on the meta device"),
    ],
)
def test_what_is_no_fresh_model(grouped, fresh, words):
    with pytest.raises(UsageError, match=words):
        load(grouped.folder, fresh)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_scripted_fresh_model(grouped):
    with pytest.raises(UsageError, match="scripted"):
        load(grouped.folder, torch.jit.script(GroupedTail()))


def test_a_fresh_model_that_can_not_be_copied(grouped):
    fresh = GroupedTail()
    fresh.cache = fresh(grouped.case.inputs)
    with pytest.raises(ModelError, match="GroupedTail can't be copied"):
        load(grouped.folder, fresh)


def _wider():
    model = GroupedTail()
    model.first, model.norm = nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10)
    model.grouped = nn.Conv2d(10, 6, 3, groups=2, bias=False)
    return model


def _other_head():
    model = GroupedTail()
    model.head = nn.Linear(6, 7)
    return model


def _longer():
    model = GroupedTail()
    model.extra = nn.Linear(2, 2, bias=False)
    return model


@pytest.mark.parametrize(
    ("fresh", "words"),
    [
        (_other_head(), r"'head\.weight' \(expected float32 \(4, 6\), found float32 \(7, 6\)\)"),
        (_longer(), r"'extra\.weight' \(expected none, found float32 \(2, 2\)\)"),
        (_wider(), r"expected grouped\.in_channels = 8, found 10"),
        (TiedEmbedding(), r"cuts 'grouped\.weight', which the model does not have"),
        (nn.Identity(), r"architecture: expected [0-9a-f]{16}\.\.\., found [0-9a-f]{16}\.\.\."),
    ],
)
def test_another_architecture_is_named_by_its_first_tensors(grouped, fresh, words):
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ArtifactError, match=words) as caught:
        load(grouped.folder, fresh)
    assert "does not fit fresh_model (architecture: expected" in str(caught.value)
    after = fresh.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_that_are_tied_in_one_model_only(tmp_path):
    case = CASES["TiedEmbedding"]
    save(tmp_path / "out", *case.pruned(case.make()))
    with pytest.raises(ArtifactError, match=r"head\.in_features|'head\.weight'"):
        load(tmp_path / "out", TiedEmbedding(tied=False))


def test_a_width_that_only_the_fingerprint_sees(tmp_path):
    """A plain cut of a wider tensor to the same width would go unnoticed otherwise."""
    case = CASES["OddBuffers"]
    model, plan = case.pruned(case.make())
    surgery = dataclasses.replace(plan.surgery, attributes=())
    save(tmp_path / "out", model, dataclasses.replace(plan, surgery=surgery))
    fresh = OddBuffers()
    fresh.inner, fresh.gain = nn.Linear(5, 9), torch.ones(9)
    fresh.outer = nn.Linear(9, 3)
    with pytest.raises(ArtifactError, match="the same names, but other widths"):
        load(tmp_path / "out", fresh)


def test_another_dtype_says_how_to_convert(tmp_path, pruned):
    model, plan = pruned
    save(tmp_path / "out", model.half(), plan)
    with pytest.raises(ArtifactError, match=r"expected float16 .* found float32 .*convert"):
        load(tmp_path / "out", GroupedTail())


def _break(monkeypatch, name, error):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(store, name, broken)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("step", ["save_file", "file_checksum"])
def test_a_failure_leaves_nothing(tmp_path, pruned, monkeypatch, existing, step):
    target = tmp_path / "a" / "b" / "out"
    if existing:
        target.mkdir(parents=True)
    _break(monkeypatch, step, OSError(28, "No space left on device"))
    with pytest.raises(ArtifactError, match=r"nothing was left: .*No space"):
        save(target, *pruned)
    assert list(tmp_path.rglob("*")) == ([tmp_path / "a", target.parent, target] * existing)


def test_an_interrupt_leaves_nothing(tmp_path, pruned, monkeypatch):
    _break(monkeypatch, "file_checksum", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "out", *pruned)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [False, True])
def test_a_move_that_fails_leaves_nothing(tmp_path, pruned, monkeypatch, existing):
    target = tmp_path / "out"
    if existing:
        target.mkdir()
    move = Path.replace

    def refuse(self, other):
        if self.name == "model.safetensors":
            return move(self, other)
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ArtifactError, match="Permission denied"):
        save(target, *pruned)
    assert list(tmp_path.rglob("*")) == [target] * existing


_PROLOGUE = """
    import resource, os, signal, sys
    from bequest.artifact import save, store
    from tests.artifact.networks import CASES
    case = CASES["GroupedTail"]
    model, plan = case.pruned(case.make())
"""


def _run(body: str, target: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    code = textwrap.dedent(_PROLOGUE) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", code, str(target)],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_file_that_outgrows_what_the_system_allows(tmp_path):
    """The same path as a full disk, with a real error of the operating system."""
    done = _run(
        """
        from bequest.errors import ArtifactError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
        try:
            save(sys.argv[1], model, plan)
        except ArtifactError as error:
            print(error)
        """,
        tmp_path / "out",
    )
    assert "could not be written, nothing was left" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_process_killed_while_writing_leaves_no_artefact(tmp_path):
    done = _run(
        """
        store.file_checksum = lambda path: os.kill(os.getpid(), signal.SIGKILL)
        save(sys.argv[1], model, plan)
        """,
        tmp_path / "out",
    )
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "out").exists()
    save(tmp_path / "out", *CASES["GroupedTail"].pruned(GroupedTail()))
    load(tmp_path / "out", GroupedTail())

import pytest
import torch
from torch import nn

import bequest
from bequest.errors import ArtifactError, ModelError
from bequest.hypersphere import convert, prune, recover, save, storage
from tests.hypersphere.networks import Net

FORMS = {
    "dense": lambda model: model,
    "converted": convert,
    "pruned": lambda model: prune(model, 0.7),
    "filter": lambda model: recover(prune(model, 0.7), "filter"),
    "layer": lambda model: recover(prune(model, 0.7, skip=["first"]), "layer"),
    "signed": lambda model: recover(prune(model, 0.7, mask="global"), "signed"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_loaded_is_what_was_saved_to_the_bit(tmp_path, form):
    made = FORMS[form](Net().eval())
    save(tmp_path / "out", made, {"note": "anything"})
    fresh = Net().eval()
    loaded = bequest.load(tmp_path / "out", fresh)
    x = torch.randn(2, 3, 6, 6)
    if form == "converted":
        made = bequest.hypersphere.deconvert(made)
    assert torch.equal(loaded(x), made(x))
    assert loaded.state_dict().keys() == made.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in made.state_dict().items())
    assert bequest.load_plan(tmp_path / "out").recipe["note"] == "anything"


def test_a_pruned_artefact_can_be_recovered_after_loading(tmp_path):
    pruned = prune(Net().eval(), 0.5)
    save(tmp_path / "out", pruned)
    loaded = bequest.load(tmp_path / "out", Net().eval())
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(recover(loaded, "signed")(x), recover(pruned, "signed")(x))


@pytest.mark.parametrize("sparsity", [0.5, 0.7, 0.9])
def test_files_are_smaller_in_proportion(tmp_path, sparsity):
    layer = nn.Linear(512, 256)
    save(tmp_path / "dense", layer)
    save(tmp_path / "sparse", recover(prune(layer, sparsity)))
    dense, sparse = (
        (tmp_path / name / "model.safetensors").stat().st_size for name in ("dense", "sparse")
    )
    assert sparse < (1 - sparsity + 1 / 32 + 0.02) * dense


def test_another_network_and_a_forged_form_are_refused(tmp_path):
    save(tmp_path / "out", recover(prune(Net(), 0.5)))
    with pytest.raises(ArtifactError, match="does not fit fresh_model"):
        bequest.load(tmp_path / "out", nn.Linear(3, 3))
    from bequest.sparse.forms import rebuild

    with pytest.raises(ModelError, match="expected a form of a pruned layer, found 'shell'"):
        rebuild(Net(), {"first": "shell"})
    with pytest.raises(ModelError, match="convolution layer named 'third'"):
        rebuild(Net(), {"third": "pruned"})


def test_storage_counts_what_the_formulas_say():
    model = Net().eval()
    x = torch.zeros(1, 3, 6, 6)
    found = {one.layer: one for one in storage(recover(prune(model, 0.5)), x)}
    second = found["second"]
    assert (second.weights, second.stay) == (576, 288)
    assert second.dense_multiplications == 576 * 36
    assert second.multiplications == (288 + 8) * 36  # the mean of each filter
    assert second.additions == (288 + 72 + 8) * 36  # one sum over the 8 · 3 · 3 inputs
    assert second.dense_bytes == 4 * (576 + 8)
    assert second.bytes == 576 // 8 + 4 * 288 + 4 * 8 + 4 * 8  # places, values, means, biases
    signed = {one.layer: one for one in storage(recover(prune(model, 0.5), "signed"), x)}["second"]
    assert signed.multiplications == (288 + 2 * 8) * 36
    assert signed.additions == (576 + 72 + 2 * 8) * 36
    dense = {one.layer: one for one in storage(model, x)}["second"]
    assert dense.multiplications == dense.dense_multiplications
    assert dense.bytes == dense.dense_bytes

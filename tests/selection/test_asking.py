"""What a report says of wishes that come to nothing: what is true, in each case."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import bequest
from bequest.errors import NothingPrunedWarning, UsageError
from tests.networks import Plain, Residual, randomise

X = torch.randn(1, 3, 8, 8)


def refused(model, ratio, x=X, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingPrunedWarning)
        pruned = bequest.prune(model, x, ratio, restorer="none", progress=False, **more)
    return {one.group: one.reason for one in pruned.report.refused}


@pytest.mark.parametrize(
    ("ratio", "pattern", "expected"),
    [
        ({"conv*": 0.5, "conv2": 0.3}, "conv2", "shadowed by 'conv*', which comes first"),
        ({"fc": 0.4, "f?": 0.2}, "f?", "shadowed by 'fc', which comes first and matches 'fc'"),
        ({"conv1": 0.5, "norm1": 0.5}, "norm1", "no channels of its own: name 'conv1'"),
        ({"conv1.weight": 0.5}, "conv1.weight", "the tensor 'conv1.weight': name the layer"),
        ({"covn1": 0.5}, "covn1", "did you mean 'conv1'"),
        ({"decoder.*": 0.5}, "decoder.*", "matches no layer; bequest.inspect"),
    ],
)
def test_a_pattern_that_asks_nothing(ratio, pattern, expected):
    assert expected in refused(randomise(Plain()), ratio, round_to=1)[pattern]


def test_a_pattern_for_a_layer_whose_group_another_pattern_has():
    """The layers of a residual stream have one width; the first pattern decides."""
    found = refused(
        randomise(Residual()), {"stem": 0.5, "conv2.1": 0.25, "conv2": 0.5}, groups="all"
    )

    assert "shadowed by 'stem'" in found["conv2.1"]
    assert "whose channels are those of 'conv2.1'" in found["conv2.1"]
    assert "not the layers in it: write 'conv2.*'" in found["conv2"]


def test_a_module_without_weights_and_one_that_is_not_used():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.last = nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 3)
            self.auxiliary = nn.Linear(16, 3)

        def forward(self, x):
            return self.last(self.act(self.first(x)))

    found = refused(Net(), {"act": 0.5, "auxiliary": 0.5}, torch.zeros(1, 4))

    assert found["act"].endswith("name 'first'")
    assert "does not use in evaluation mode" in found["auxiliary"]


class WithByProducts(nn.Module):
    """A classifier that returns a hidden state besides, in a container of some kind."""

    def __init__(self, pack):
        super().__init__()
        self.pack = pack
        self.stem, self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.down(torch.relu(self.up(x)))
        return self.pack(self.head(x), x)


@pytest.mark.parametrize(
    ("pack", "name"),
    [
        (lambda y, h: {"logits": y, "last_hidden_state": h}, "'last_hidden_state'"),
        (lambda y, h: {"logits": y, "hidden": (h, h)}, "'hidden[0]', 'hidden[1]'"),
        (lambda y, h: (y, [h]), "'[1][0]'"),
    ],
)
@pytest.mark.parametrize("groups", ["inner", "all"])
def test_a_stream_that_is_a_result_is_named_with_it(pack, name, groups):
    found = refused(WithByProducts(pack), 0.5, torch.zeros(1, 8), groups=groups)

    assert f"its channels are the network's output {name}; name" in found["stem"]
    assert set(found) == {"stem"}  # that the classifier stays is no news


def test_a_classifier_alone_is_no_news_unless_a_pattern_asks_for_it():
    assert refused(randomise(Plain()), 0.5) == {}
    assert "name the layer in full" in refused(randomise(Plain()), {"f*": 0.5})["fc"]


def test_a_layer_that_no_group_holds_is_named_with_its_operator():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(4, 16), nn.Linear(16, 3)
            self.mixing = nn.Parameter(torch.rand(16, 16))

        def forward(self, x):
            x = self.first(x)
            return self.head(x @ torch.linalg.matrix_exp(self.mixing))

    found = refused(Net(), 0.5, torch.zeros(1, 4))
    by_name = refused(Net(), {"first": 0.25, "mixing*": 0.5}, torch.zeros(1, 4))

    assert "linalg_matrix_exp" in found["mixing"]
    assert by_name["mixing*"]


def test_a_value_that_meets_an_operator_without_a_rule_is_no_layer():
    class Masks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 16)
            self.outer = nn.Linear(16, 8)

        def forward(self, x):
            mask = torch.ones(x.shape[1], x.shape[1]).tril()
            return self.outer(torch.relu(self.inner(mask @ x.cumsum(1))))

    pruned = bequest.prune(Masks(), torch.randn(2, 5, 8), 0.5, restorer="none", progress=False)
    assert [one.name for one in pruned.report.groups] == ["inner"]
    assert "" not in {one.group for one in pruned.report.refused}


def test_a_stream_that_is_frozen_and_a_result():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(4, 16), nn.Linear(16, 3)

        def forward(self, x):
            x = self.stem(x)
            return {"logits": self.head(x.sort(-1).values), "features": x}

    reason = refused(Net(), 0.5, torch.zeros(1, 4))["stem"]

    assert "sort" in reason
    assert reason.endswith("its channels are the network's output 'features'")


def test_a_share_that_rounding_leaves_nothing_of():
    model = randomise(Plain(64))

    found = refused(model, {"conv1": 0.05, "conv2": 0.5})
    finer = refused(model, {"conv1": 0.05, "conv2": 0.5}, round_to=1)

    assert found == {
        "conv1": "0.05 of its 64 channels rounds to none at round_to=8; round_to=1 takes 4"
    }
    assert finer == {}


def test_a_group_that_ranks_above_the_others():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[2].weight.copy_(torch.arange(8)[:, None].double().exp().expand(8, 8))

    found = refused(model, 0.25, torch.zeros(1, 4), scope="global", round_to=1, criterion="l1")

    assert "rank above those of other groups" in found["0"]


def test_a_call_that_pruned_nothing_warns_and_reports():
    with pytest.warns(NothingPrunedWarning, match="nothing was pruned: 'convv1': it matches no"):
        pruned = bequest.prune(randomise(Plain()), X, {"convv1": 0.5}, restorer="none")

    assert pruned.report.groups == ()
    assert pruned.report.notes[0].startswith("nothing was pruned")
    with pytest.warns(NothingPrunedWarning, match="'conv1': 0.01 of its 16 channels"):
        bequest.prune(randomise(Plain()), X, 0.01, restorer="none")


def test_a_ratio_of_nothing_is_no_surprise():
    with warnings.catch_warnings():
        warnings.simplefilter("error", NothingPrunedWarning)

        pruned = bequest.prune(randomise(Plain()), X, 0.0, restorer="none")
        bequest.prune(randomise(Plain()), X, {"conv1": 0.5, "*": 0}, restorer="none")

    assert pruned.report.notes == ()


def test_progressive_pruning_says_the_same():
    with pytest.warns(NothingPrunedWarning, match="did you mean 'stem'"):
        pruned = bequest.robust.prune(
            WithByProducts(lambda y, h: y), torch.zeros(1, 8), ratio={"sten": 0.5}
        )
    assert pruned.report.notes[0].startswith("nothing was pruned")


def test_options_that_would_do_nothing():
    model = randomise(Plain(16))
    made_up = {"source": "pink"}, {"value_range": (0.0, 1.0)}
    for fields in made_up:
        restorer = bequest.restorers.Regression(images=8, **fields)
        with pytest.raises(UsageError, match=f"for which {next(iter(fields))} would be"):
            bequest.prune(model, X, restorer=restorer, data=[X])
    with pytest.raises(UsageError, match=r"no two share one \('conv1' 0.5, 'conv2' 0.25\)"):
        bequest.prune(model, X, {"conv1": 0.5, "conv2": 0.25}, scope="global", restorer="none")


def test_samples_made_beforehand_go_with_what_made_them():
    restorer = bequest.restorers.Regression(images=8, inversion=0, source="white")
    model = randomise(Plain(16))
    samples = restorer.samples(model, X, None, 0)

    assert bequest.prune(model, X, restorer=restorer, data=samples, progress=False).report.groups


def test_an_option_that_a_strategy_has_no_use_for():
    with pytest.raises(UsageError, match="alpha: the strategy 'baseline' scores no changes"):
        bequest.robust.prune(nn.Linear(3, 2), torch.zeros(1, 3), strategy="baseline", alpha=0.5)


def test_inspecting_names_the_result_that_holds_a_stream():
    views = bequest.inspect(
        WithByProducts(lambda y, h: {"logits": y, "hidden": h}), torch.zeros(1, 8)
    ).groups

    held = {view.name: view.reasons for view in views if view.kind == "output"}
    assert held["stem"][0] == "its channels are the network's output 'hidden'"
    assert held["head"][0] == "its channels are the network's output 'logits'"

"""Token models and models of several inputs are pruned without data."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import bequest
from bequest.calibration.inputs.synthetic import Synthetic, synthesise
from bequest.errors import UsageError
from bequest.graph.trace import trace
from bequest.graph.vocabulary import vocabularies
from bequest.restorers import Regression

WIDTH = 16


class Bert(nn.Module):
    """Tokens, segments and a mask; an encoder layer after the norm's place in BERT."""

    def __init__(self):
        super().__init__()
        self.words, self.segments = nn.Embedding(50, WIDTH), nn.Embedding(2, WIDTH)
        self.places = nn.Embedding(12, WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 40), nn.Linear(40, WIDTH)
        self.head = nn.Linear(WIDTH, 3)
        self.register_buffer("order", torch.arange(12))

    def forward(self, tokens, segments, mask):
        x = (
            self.words(tokens)
            + self.segments(segments)
            + self.places(self.order[: tokens.shape[1]])
        )
        q, k, v = self.qkv(x).chunk(3, -1)
        bias = (1.0 - mask[:, None, :].to(x.dtype)) * -1e4
        weights = (q @ k.transpose(1, 2) / 4 + bias).softmax(-1)
        x = self.norm1(x + self.out(weights @ v))
        x = self.norm2(x + self.down(F.gelu(self.up(x))))
        return self.head(x[:, 0])


class Llama(nn.Module):
    """Tokens through a causal attention and a gated MLP, root-mean-square norms, a tied head."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(60, WIDTH)
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = (nn.Linear(WIDTH, 40, bias=False) for _ in range(2))
        self.down = nn.Linear(40, WIDTH, bias=False)

    def forward(self, tokens):
        x = self.words(tokens)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return F.linear(x, self.words.weight)


class TwoPictures(nn.Module):
    """Two floating-point inputs of different shapes."""

    def __init__(self):
        super().__init__()
        self.conv, self.side = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(5, 16)
        self.head = nn.Linear(32, 4)

    def forward(self, image, numbers):
        image = F.relu(self.conv(image)).mean((2, 3))
        return self.head(torch.cat([image, F.relu(self.side(numbers))], 1))


TOKENS = torch.zeros(2, 12, dtype=torch.int64)
MODELS = [
    (Bert, (TOKENS, TOKENS, torch.ones_like(TOKENS)), [50, 2, None], "up"),
    (Llama, (TOKENS,), [60], "up"),
    (TwoPictures, (torch.zeros(1, 3, 8, 8), torch.zeros(1, 5)), [None, None], "conv"),
]


@pytest.mark.parametrize(("network", "inputs", "expected", "_"), MODELS)
def test_tables_are_found_through_the_graph(network, inputs, expected, _):
    assert vocabularies(trace(network(), inputs)) == expected


@pytest.mark.parametrize(("network", "inputs", "rows", "_"), MODELS)
def test_each_input_is_made_up_by_what_it_is(network, inputs, rows, _):
    made = synthesise(network(), inputs, 128, "leaves", None, seed=0)
    assert made.count == 128
    for example, vocabulary, *chunks in zip(inputs, rows, *made.chunks, strict=True):
        values = torch.cat(chunks)
        assert values.dtype == example.dtype
        assert values.shape == (128, *example.shape[1:])
        if vocabulary is not None:
            assert (int(values.min()), int(values.max())) == (0, vocabulary - 1)
        elif not example.is_floating_point():
            assert (values == 1).all()


@pytest.mark.parametrize(("network", "inputs", "_", "layer"), MODELS)
def test_hidden_channels_leave_without_data(network, inputs, _, layer):
    model = network().eval()
    errors = []
    made = synthesise(model, inputs, 64, "leaves", None, seed=7).chunks[0]
    for restorer, data in (("regression", Synthetic(images=64)), ("none", None)):
        pruned = bequest.prune(
            model, inputs, {layer: 0.5}, restorer=restorer, data=data, round_to=1
        )
        assert pruned.plan.groups
        difference = pruned.model(*made) - model(*made)
        errors.append(float(difference.square().mean().detach()))
    assert errors[0] < 0.8 * errors[1]


class Looked(nn.Module):
    """A table whose rows are picked in one way or another, and a hidden layer."""

    def __init__(self, pick):
        super().__init__()
        self.table = nn.Embedding(50, WIDTH)
        self.places = nn.Embedding(13, WIDTH)
        self.register_buffer("order", torch.arange(12))
        self.up, self.down = nn.Linear(WIDTH, 40), nn.Linear(40, WIDTH)
        self.pick = pick

    def forward(self, numbers):
        return self.down(F.gelu(self.up(self.pick(self, numbers))))


LOOKED_UP = {
    "brackets": (lambda m, numbers: m.table.weight[numbers], 50),
    "index_select": (lambda m, numbers: m.table.weight.index_select(0, numbers[:, 0]), 50),
    "one_hot": (lambda m, numbers: F.one_hot(numbers, WIDTH).float(), WIDTH),
    "bags": (lambda m, numbers: F.embedding_bag(numbers, m.table.weight), 50),
    "positions counted from a mask": (
        lambda m, mask: m.places(mask.cumsum(1) * mask) * (mask == 1)[..., None],
        None,
    ),
}


@pytest.mark.parametrize(("pick", "rows"), LOOKED_UP.values(), ids=LOOKED_UP)
def test_ways_to_look_up(pick, rows):
    assert vocabularies(trace(Looked(pick), TOKENS)) == [rows]


UNCLEAR = {
    "add": lambda m, tokens: m.table(tokens + 3),
    "clamp": lambda m, tokens: m.table(tokens.clamp(min=0)),
    "remainder": lambda m, tokens: m.table.weight[tokens % 50],
    "lt": lambda m, lengths: m.places(m.order) * (m.order < lengths[:, :1])[..., None],
    "eq": lambda m, tokens: (tokens[..., None] == m.order).float() @ m.places.weight[:12],
}


@pytest.mark.parametrize(("operator", "pick"), UNCLEAR.items(), ids=UNCLEAR)
def test_numbers_that_cannot_be_known_are_refused_by_name(operator, pick):
    model = Looked(pick).eval()
    with pytest.raises(UsageError, match=f"input 'numbers' up: it goes through {operator} "):
        bequest.prune(model, TOKENS, {"up": 0.5})
    tokens = torch.randint(0, 12, (64, 12), generator=torch.Generator().manual_seed(0))
    pruned = bequest.prune(model, TOKENS, {"up": 0.5}, data=[tokens], round_to=1)
    assert pruned.model.up.out_features == 20


def test_where_bags_begin_cannot_be_known():
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(50, WIDTH, mode="sum")
            self.up, self.down = nn.Linear(WIDTH, 40), nn.Linear(40, WIDTH)

        def forward(self, tokens, begins):
            return self.down(F.gelu(self.up(self.table(tokens, begins))))

    model, inputs = Bags().eval(), (torch.arange(30), torch.tensor([0, 9, 12]))
    with pytest.raises(UsageError, match="input 'begins' up: it goes through embedding_bag "):
        bequest.prune(model, inputs, 0.5)
    pruned = bequest.prune(model, inputs, 0.5, data=[inputs], round_to=1)
    assert pruned.model.up.out_features == 20


def test_numbers_that_an_operator_does_not_take_are_refused_with_its_name():
    model = Looked(lambda m, numbers: m.table(numbers + 3)).eval()
    with pytest.raises(
        UsageError, match=r"embedding in 'table' does not run on the inputs .*data="
    ):
        bequest.prune(
            model,
            TOKENS,
            0.5,
            data=[torch.arange(38, 50).repeat(64, 1).sub_(torch.arange(64)[:, None] % 2)],
        )


def test_made_up_tokens_are_followed_from_afar():
    model, inputs = Llama().eval(), MODELS[1][1]
    made = synthesise(model, inputs, 64, "leaves", None, seed=0)
    tokens = torch.cat([part for (part,) in made.chunks])
    ridges = [
        bequest.prune(model, inputs, {"up": 0.5}, data=data, round_to=1).plan.groups[0].ridge
        for data in (Synthetic(images=64), [tokens])
    ]
    assert ridges[0] == pytest.approx(100 * ridges[1])


def test_a_dict_of_inputs():
    names = ("tokens", "segments", "mask")
    inputs = dict(zip(names, MODELS[0][1], strict=True))
    pruned = bequest.prune(
        Bert().eval(), inputs, {"up": 0.5}, restorer=Regression(images=32), round_to=1
    )
    assert pruned.model.up.out_features == 20


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64),),
        (torch.zeros(5),),
        (torch.tensor(3),),
        (torch.zeros(1, 3, 8, 8), torch.tensor(float("nan"))),
    ],
)
def test_what_cannot_be_made_up_is_refused_by_its_shape_and_type(inputs):
    with pytest.raises(UsageError, match=r"batches of real numbers.*found inputs of.*torch"):
        synthesise(TwoPictures(), inputs, 8, "leaves", None, seed=0)

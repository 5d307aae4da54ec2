"""Residuals of the published LeNet-300-100, to the four digits that were published."""

import pytest
from safetensors.torch import load_file

from bequest.criteria import L2
from bequest.graph.units import Consumer, Producer, Unit
from bequest.restorers import LBYL, Merge
from bequest.restorers.weight_space import reconstruction_error
from tests.restorers.units import RELU

# ratio, λ2 -> (exact, official, merge) of ip1 and of ip2
ANCHORS = {
    (0.5, 0.3): ((0.7192, 0.7378, 0.9866), (0.6839, 0.6877, 0.9916)),
    (0.6, 0.6): ((0.7225, 0.7387, 0.9885), (0.7218, 0.7260, 0.9813)),
    (0.7, 0.3): ((0.7274, 0.7390, 0.9854), (0.7576, 0.7608, 0.9897)),
    (0.8, 1e-6): ((0.7661, 0.7699, 0.9830), (0.8071, 0.8095, 0.9908)),
}


def unit_of(state, producer, consumer):
    weight, bias = (state[f"{producer}.{part}"].double() for part in ("weight", "bias"))
    reader = state[f"{consumer}.weight"].double()[:, :, None]
    return Unit(
        producer,
        len(weight),
        (Producer(producer, "linear", weight, bias, None),),
        RELU,
        (Consumer(consumer, reader, zero_padded=False),),
        None,
    )


@pytest.mark.parametrize(("ratio", "lambda2"), list(ANCHORS))
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("method", [0, 1, 2])
def test_mean_residual(shared, ratio, lambda2, layer, method):
    state = load_file(shared / "weights" / "lenet_300_100_fashionmnist.safetensors")
    unit = unit_of(state, *(("ip1", "ip2"), ("ip2", "ip3"))[layer])
    restorer = (LBYL(lambda2=lambda2), LBYL(lambda2=lambda2, compat="official"), Merge(0.45))[
        method
    ]
    order = L2().score(unit, seed=0).argsort(descending=True)
    p = round(unit.size * (1 - ratio))
    kept, removed = order[:p].sort().values, order[p:].sort().values
    given = restorer.deliver(unit, kept, removed, seed=0)
    error = reconstruction_error(unit, kept, removed, given).mean().item()
    assert round(error, 4) == ANCHORS[ratio, lambda2][layer][method]

"""Is anything ever found outside a certificate? A thousand random networks, searched in float64.

Perceptrons, convolutional and residual networks of six activations, their channels gone, merged, or
all of their weights moved; three boxes of inputs each, of ε 0.02, 0.2 and the whole range. Gradient
ascent on each output's change looks for what the certificate excludes; no certificate may be looser
than intervals alone.

``python -m benchmarks.certified_networks 1000`` (``make test-certificates``) ends with an error
where something is found.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import torch
from tests.robust import networks as made
from tests.robust import test_certificates
from tests.robust.lirpa import Difference
from tests.robust.search import reached

from benchmarks.certificates import by_intervals
from benchmarks.record import record
from bequest.robust import aligned, certify

networks: Any = test_certificates
NAMES = {"mlp": "perceptron", "convolutional": "convolutional", "Residual": "residual"}


def looked_at(number: int) -> tuple[str, str, bool, bool, float]:
    """Shape and unit; is a bound violated, is one looser than intervals; found/certified."""
    generator = torch.Generator().manual_seed(number)
    make = list(networks.SHAPES)[number % 3]
    unit = list(networks.UNITS)[number // 3 % len(networks.UNITS)]
    eps, how = networks.CASES[number // 18 % 3]
    dense = networks.randomised(make(networks.UNITS[unit]), generator)
    other = networks.changed(dense, how, generator)
    x, low, high = networks.boxes(networks.SHAPES[make], 3, eps, generator)
    found = certify(dense, other, x, eps)
    least, most = reached(Difference(dense, other), low, high)
    lower, upper = by_intervals(dense, other, x, eps)
    slack = 1e-9 * (1 + upper - lower)
    looser = (lower > found.lower + slack) | (found.upper > upper + slack)
    outside = (found.lower > least) | (most > found.upper)
    share = ((most - least) / (found.upper - found.lower)).mean().item()
    return NAMES[make.__name__], unit, bool(outside.any()), bool(looser.any()), share


def main(count: int) -> None:
    """Prints and records the table."""
    remembering: Any = made
    aligned.trace = remembering.traced_once()  # type: ignore[attr-defined]
    seen = defaultdict(list)
    for number in range(count):
        shape, unit, *found = looked_at(number)
        seen[shape, unit].append(found)
        if number % 100 == 99:
            violated = sum(one[0] for held in seen.values() for one in held)
            print(f"{number + 1} networks, {violated} violations", flush=True)
    rows = []
    for (shape, unit), held in sorted(seen.items()):
        outside, looser, shares = zip(*held, strict=True)
        rows.append(
            [
                *(shape, unit, len(held), sum(outside), sum(looser)),
                *(round(one, 3) for one in (max(shares), sum(shares) / len(shares))),
            ]
        )
    record(
        "certified_networks",
        rows,
        [
            *("networks", "units", "count", "violations", "looser than intervals"),
            *("largest found/certified", "mean of it"),
        ],
        boxes="three per network, of eps 0.02 (channels gone), 0.2 (merged), 1 (weights moved)",
        search="gradient ascent on every output's change, 20 steps from 3 starts, float64",
        seeds=f"0 to {count - 1}",
    )
    if any(row[3] or row[4] for row in rows):
        raise SystemExit("a certificate is violated, or looser than intervals")


if __name__ == "__main__":
    main(int(sys.argv[1]))

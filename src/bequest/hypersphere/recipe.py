"""What a training run is told: checked when it is made, kept in every checkpoint."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_args

from bequest.errors import UsageError
from bequest.execution.randomness import check_seed
from bequest.hypersphere.augmentation import AUGMENTATIONS
from bequest.hypersphere.masks import SCOPES, check_sparsity, parse_block
from bequest.hypersphere.penalty import Form

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with Nesterov momentum, on the hypersphere or off it.

    The learning rate rises linearly over the first ``warmup`` of all steps and then falls as a
    cosine to zero. The penalty's weight rises as a cube over the first ``penalty_warmup``.

    Attributes:
        epochs: passes over the images.
        batch_size: images per step, over all processes together.
        lr: the highest learning rate. On CIFAR-10 a ResNet-20 ends higher with 0.25 than with 0.1,
            plain as on the hypersphere. For a network that is trained already: 0.03.
        momentum: of the gradient.
        weight_decay: on everything but the filters' directions, which have no length to decay.
        warmup: share of the steps over which the learning rate rises.
        hyperspherical: train directions and gains; False trains the plain network.
        sparsity: share of the weights that the penalty drives to zero; 0 = no penalty.
        penalty: λ of :class:`bequest.hypersphere.HypersphericalPenalty` at its highest.
        penalty_warmup: share of the steps over which λ rises.
        form: of the penalty.
        push: of the penalty's form "two-term".
        mask: how the sparsity is counted.
        skip: shell patterns of layers that the penalty leaves alone.
        augment: names of :data:`bequest.hypersphere.augmentation.AUGMENTATIONS`, in their order.
        precision: as Lightning Fabric calls it.
        seed: of the order of the images, the augmentation and dropout.

    Raises:
        UsageError: a value is out of range.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 0.25
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.05
    hyperspherical: bool = True
    sparsity: float = 0.5
    penalty: float = 0.3
    penalty_warmup: float = 0.8
    form: Form = "two-term"
    push: float = 0.001
    mask: str = "layer"
    skip: tuple[str, ...] = ()
    augment: tuple[str, ...] = ("crop", "flip")
    precision: str = "32-true"
    seed: int = 0

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_seed(self.seed)
        for name, least in (("epochs", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{name}: expected at least {least}, found {value}")
        for name, value in (
            ("lr", self.lr),
            ("weight_decay", self.weight_decay),
            ("penalty", self.penalty),
            ("push", self.push),
        ):
            if not 0 <= value < math.inf:
                raise UsageError(f"{name}: expected a finite number of at least 0, found {value}")
        for name in ("momentum", "warmup", "penalty_warmup"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UsageError(f"{name}: expected a number in [0, 1), found {value}")
        for name, allowed in (("precision", PRECISIONS), ("form", get_args(Form))):
            value = getattr(self, name)
            if value not in allowed:
                raise UsageError(f"{name}: expected one of {', '.join(allowed)}; found {value!r}")
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise UsageError(
                    f"augment: expected names of {', '.join(AUGMENTATIONS)}; found {name!r}"
                )
        if self.mask not in SCOPES:
            parse_block(self.mask)

    def learning_rate(self, step: int, steps: int) -> float:
        """At ``step`` of ``steps``."""
        rising = self.warmup * steps
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        held = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in held.items()}

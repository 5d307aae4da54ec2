"""AutoAttack, where it is installed: the bridge to the package and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bequest.errors import MissingExtraError, UsageError

FEWEST = 4
"""Classes that the targeted loss of AutoAttack compares."""


def run_autoattack(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    labels: Tensor,
    eps: Tensor,
    ends: tuple[Tensor, Tensor],
    seed: int,
) -> Tensor:
    """Inputs under the standard version of AutoAttack (Croce & Hein 2020), ℓ∞.

    The package attacks inputs in 0..1: inputs are scaled there and back. The global random
    generators, which it seeds, are put back.

    Args:
        logits: inputs (B, ...) → (B, K).
        x: correctly classified inputs.
        labels: (B,).
        eps: of the shape of x.
        ends: lowest and highest input, of the shape of x.
        seed: of its draws.

    Raises:
        MissingExtraError: the package isn't installed.
        UsageError: fewer than four classes, or an eps that isn't one share of the range.
    """
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise MissingExtraError("pyautoattack", "robust", "the attack 'autoattack'") from error
    classes = logits(x[:1]).shape[1]
    if classes < FEWEST:
        raise UsageError(f"autoattack needs {FEWEST} classes or more, found {classes}; use 'pgd'")
    low, width = ends[0][:1], (ends[1] - ends[0])[:1]
    share = eps[:1] / width
    if not torch.allclose(share, share.flatten()[0]):
        raise UsageError(
            "autoattack: expected an eps that is the same share of the input range everywhere; "
            "divide both by each channel's std"
        )
    state = np.random.get_state()  # noqa: NPY002 -- the one that the package draws from
    devices = [x.device] if x.is_cuda else []
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            attack = AutoAttack(
                lambda scaled: logits(low + width * scaled.reshape(-1, *x.shape[1:])),
                norm="Linf",
                eps=float(share.flatten()[0]),
                seed=seed,
                device=x.device,
            )
            attack.verbose = False
            attack.apgd_targeted.n_target_classes = min(9, classes - 1)
            attack.fab.n_target_classes = min(9, classes - 1)
            scaled = ((x - low) / width).clamp(0, 1)
            images = scaled if x.ndim == 4 else scaled.flatten(1)[:, None, None]
            found, _ = attack.run_standard_evaluation(images, labels, batch_size=len(x))
    finally:
        np.random.set_state(state)  # noqa: NPY002
    moved: Tensor = low + width * found.reshape(x.shape)
    return moved.detach()

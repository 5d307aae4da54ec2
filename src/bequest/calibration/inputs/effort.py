"""How much is done where nobody says it: one word for the numbers of inputs and of steps."""

from __future__ import annotations

from typing import NamedTuple

from bequest.errors import UnknownNameError


class Effort(NamedTuple):
    """Times what the default does.

    Attributes:
        images: made-up inputs.
        inversion: steps by which they are fitted to the network.
        refinement: steps behind the closed form.
        macs: multiply-accumulates up to which there are so many.
    """

    images: float
    inversion: float
    refinement: float
    macs: float


EFFORTS = {
    "quick": Effort(images=1, inversion=0.25, refinement=0, macs=0.25),
    "default": Effort(images=1, inversion=1, refinement=1, macs=1),
    "long": Effort(images=4, inversion=2.5, refinement=2.5, macs=10),
}
"""By the word that calls say; docs/methods.md has what each costs and gains."""


def effort_of(word: str) -> Effort:
    """The effort of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if not isinstance(word, str) or word not in EFFORTS:
        raise UnknownNameError("effort", str(word), EFFORTS)
    return EFFORTS[word]

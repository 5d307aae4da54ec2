"""A configuration of transformers that says the widths of a pruned network, found by trying.

Which number of a configuration is which width of which layer isn't told by its name or its value:
where heads are as many as they are wide, both are 8. It is told by the class: built on the meta
device with one number changed, the tensors that change with it are those that it stands for.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from bequest.execution.modules import first_lines
from bequest.surgery.operation import Surgery

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor in the state dict → its shape."""

Place = tuple[str, int]
"""A tensor, and one of its dimensions."""

_MOST_TRIED = 512
_IMPLICIT = ("head_dim", "n_inner")
"""Settings that follow from others where a configuration leaves them out, or says None."""


@dataclass(frozen=True)
class Setting:
    """A number of a configuration.

    Attributes:
        name: how the configuration calls it.
        value: the dense network's.
        slopes: the dimensions that grow with it, and by how much per unit.
    """

    name: str
    value: int
    slopes: Mapping[Place, float]


@dataclass(frozen=True)
class Situation:
    """A pruned network of transformers, and its class's view of it.

    Attributes:
        model: the pruned network; its configuration is still the dense one's.
        config: a configuration of which the class builds the dense network, with the new biases.
        dense: the shapes that it builds.
        pruned: the shapes of the pruned network.
        kept: the indices that stay along dimensions that have shrunk.
        settings: the numbers that say a width which has changed.
    """

    model: nn.Module
    config: Any
    dense: Shapes
    pruned: Shapes
    kept: Mapping[Place, Sequence[int]]
    settings: Sequence[Setting]

    @property
    def changed(self) -> dict[Place, tuple[int, int]]:
        """The dimensions that have shrunk: width before and after."""
        return {
            (name, dim): (before, after)
            for name, shape in self.pruned.items()
            for dim, (before, after) in enumerate(
                zip(self.dense.get(name, shape), shape, strict=True)
            )
            if before != after
        }

    @property
    def unknown(self) -> list[str]:
        """Tensors of the pruned network that the class doesn't build."""
        return sorted(set(self.pruned) - set(self.dense))

    def free(self, setting: Setting) -> bool:
        """Whether all that a setting stands for has shrunk, where it is there at all, and by it."""
        changed = self.changed
        return all(
            place in changed and self._in_units(setting, place)
            for place in setting.slopes
            if place[0] in self.pruned
        )

    def _in_units(self, setting: Setting, place: Place) -> bool:
        """Whether heads have left as runs of rows, or their width as the same rows of every run.

        Of 64 rows, 8 heads that are 8 wide, either leaves 32.
        """
        rows, count = self.dense[place[0]][place[1]], setting.value
        if "head" not in setting.name or place not in self.kept:
            return True
        if count * setting.slopes[place] != rows:
            return True  # it isn't this number alone
        stays = np.zeros(rows, bool)
        stays[list(self.kept[place])] = True
        if setting.name.endswith(("dim", "size")):
            every = stays.reshape(-1, count)
            return bool((every == every[:1]).all())
        runs = stays.reshape(count, -1)
        return bool((runs == runs[:, :1]).all())

    def wanted(self, setting: Setting) -> dict[Place, float]:
        """What each dimension that a setting stands for asks it to be, were it the only one."""
        changed = self.changed
        return {
            place: setting.value - (changed[place][0] - changed[place][1]) / slope
            for place, slope in setting.slopes.items()
            if place in changed
        }


def situations(model: Any, surgery: Surgery) -> Iterator[Situation]:
    """The network seen through its own configuration, then with what that leaves out spelled out.

    Args:
        model: a pruned network of transformers, in its own class.
        surgery: what was done to the dense one.
    """
    kept = {(cut.tensor, cut.dim): cut.keep for cut in surgery.cuts if cut.blocks == 1}
    pruned = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    config = with_biases(model, pruned)
    yield _situation(model, config, pruned, kept)
    spelled = copy.deepcopy(config)
    dense = shapes(model, config)
    for name in _IMPLICIT:
        for value in _possible(config, name, dense):
            setattr(spelled, name, value)
            if _built(model, spelled) == dense and _slopes(model, spelled, name, value, dense):
                yield _situation(model, spelled, pruned, kept)
                break
            spelled = copy.deepcopy(config)


def expressions(
    situation: Situation, shares: Collection[float]
) -> Iterator[tuple[Any, dict[str, int]]]:
    """Configurations of which the class builds tensors of the pruned network's shapes.

    Fewer changes come first. What their layers compute is still to be compared.

    Args:
        situation: the network.
        shares: what groups of channels have kept.

    Yields:
        A configuration, and its numbers that are not the dense network's.
    """
    settings = [one for one in situation.settings if situation.free(one)]
    choices = [[one.value, *_candidates(situation, one, settings, shares)] for one in settings]
    combinations = list(product(*choices))[:_MOST_TRIED]
    asked = [
        {one.name: value for one, value in zip(settings, values, strict=True) if value != one.value}
        for values in combinations
    ]
    for changes in sorted(asked, key=len):
        config = copy.deepcopy(situation.config)
        for name, value in changes.items():
            setattr(config, name, value)
        built = _built(situation.model, config) or {}
        if all(built.get(name) == shape for name, shape in situation.pruned.items()):
            yield config, changes


def objection(config: Any) -> str | None:
    """What the class of a configuration says to its numbers when it is loaded; None = nothing."""
    try:
        config.validate()
    except Exception as error:
        cause = error.__cause__
        return first_lines(cause if isinstance(cause, Exception) else error)
    return None


def with_biases(model: Any, pruned: Shapes) -> Any:
    """The model's configuration, with those biases switched on that restoring has added."""
    config = copy.deepcopy(model.config)
    dense = shapes(model, config)
    missing = set(pruned) - set(dense)
    for name, value in config.to_dict().items():
        if value is False and "bias" in name and missing:
            switched = copy.deepcopy(config)
            setattr(switched, name, True)
            if missing & set(_built(model, switched) or ()):
                config = switched
    return config


def shapes(model: Any, config: Any) -> Shapes:
    """The shapes that the model's class builds of a configuration.

    Raises:
        Exception: whatever the class says to it.
    """
    with torch.device("meta"):
        built = type(model)(copy.deepcopy(config))
    return {name: tuple(value.shape) for name, value in built.state_dict().items()}


def _built(model: Any, config: Any) -> Shapes | None:
    """The same; None where the class refuses."""
    try:
        return shapes(model, config)
    except Exception:
        return None


def _situation(
    model: Any, config: Any, pruned: Shapes, kept: Mapping[Place, Sequence[int]]
) -> Situation:
    dense = shapes(model, config)
    bare = Situation(model, config, dense, pruned, kept, ())
    found = []
    for name, value in config.to_dict().items():
        if type(value) is int and value > 1 and not name.endswith(("token_id", "vocab_size")):
            slopes = _slopes(model, config, name, value, dense)
            # A number of heads whose width follows from it shows in no tensor's shape.
            if any(place in bare.changed for place in slopes) or ("head" in name and not slopes):
                found.append(Setting(name, value, slopes))
    return replace(bare, settings=found)


def _slopes(model: Any, config: Any, name: str, value: int, dense: Shapes) -> dict[Place, float]:
    """What grows with a number: the class is built with twice as much."""
    doubled = copy.deepcopy(config)
    try:
        setattr(doubled, name, 2 * value)
    except Exception:  # a configuration says what it takes
        return {}
    wide = _built(model, doubled)
    if wide is None or set(wide) != set(dense):
        return {}
    return {
        (tensor, dim): (after - before) / value
        for tensor, shape in dense.items()
        for dim, (before, after) in enumerate(zip(shape, wide[tensor], strict=True))
        if before != after
    }


def _possible(config: Any, name: str, dense: Shapes) -> Iterator[int]:
    """Values that a configuration may mean by leaving a number out."""
    if getattr(config, name, None) is not None:
        return
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "hidden_size", None)
    if type(heads) is int and type(width) is int and name == "head_dim":
        yield width // heads
    elif hasattr(config, name):
        yield from sorted({size for shape in dense.values() for size in shape if size > 1})


def _candidates(
    situation: Situation, setting: Setting, settings: Sequence[Setting], shares: Collection[float]
) -> list[int]:
    """Other values that a setting may have: what its own dimensions ask for, or the groups' shares.

    A dimension that several settings stand for, such as queries, keys and values in one matrix, may
    ask for more than one of them; those that are a setting's alone decide.
    """
    wanted = situation.wanted(setting)
    others = [one for one in settings if one is not setting]
    own = {v for place, v in wanted.items() if not any(place in one.slopes for one in others)}
    if len(own) > 1:
        return []
    values = own or {*wanted.values(), *(setting.value * share for share in shares)}
    whole = {round(value) for value in values if abs(value - round(value)) < 1e-6}
    return sorted(value for value in whole if 0 < value < setting.value)

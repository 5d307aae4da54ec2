"""How a network is read: one rule per ATen operator, and a wall where there is none.

A rule gets a :class:`Step` (the operator at hand) and returns where the channels of its result
are. On the way it tells the ledger what must leave together and what can't leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from bequest.graph.ledger import Labels, Layout, Ledger
from bequest.graph.reading import Reading, Role
from bequest.graph.trace import Network, operator_of, place_of


@dataclass(frozen=True)
class Step:
    """One operator and what is known before it."""

    node: fx.Node
    reading: Reading
    looked_at: set[fx.Node] = field(default_factory=set)
    """Operands whose channels the rule knows; see :func:`_overlooked`."""

    @property
    def ledger(self) -> Ledger:
        """Where statements about labels go."""
        return self.reading.ledger

    @property
    def place(self) -> str:
        """Operator and module, for messages."""
        return place_of(self.node)

    @property
    def ndim(self) -> int:
        """Number of dimensions of the (first) result."""
        return len(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (first) result."""
        value = self.node.meta["val"]
        return tuple((value[0] if isinstance(value, tuple | list) else value).shape)

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name, as the operator's schema has it."""
        if position < len(self.node.args):
            return self.node.args[position]
        return self.node.kwargs.get(name, default)

    def operands(self) -> list[fx.Node]:
        """Every tensor that the operator reads."""
        return [node for node in self.node.all_input_nodes if _is_tensor(node)]

    def layout(self, node: fx.Node) -> Layout:
        """Where the channels of an operand are."""
        layout = self.reading.layouts[node]
        if isinstance(layout, tuple):
            raise TypeError(f"{node} has several results")
        self.looked_at.add(node)
        return layout

    def ignore(self, operands: Iterable[fx.Node]) -> None:
        """States that of these operands only the type or device counts, or their being there."""
        self.looked_at.update(operands)

    def tensor_name(self, node: fx.Node | None) -> str | None:
        """Qualified name where ``node`` is a parameter or buffer itself, else None."""
        return None if node is None else self.reading.network.tensors.get(node.name)

    def fixed(self, shape: Sequence[int] | None = None) -> Layout:
        """A layout without labels: nothing of this tensor can leave."""
        return Layout((None,) * len(self.shape if shape is None else shape), self.place)

    def hold(self, labels: Labels | None, why: str) -> None:
        """States that ``labels`` meet as many fixed channels (see :meth:`Ledger.hold`)."""
        if labels is not None:
            self.ledger.hold(labels, f"{why} ({self.place})")

    def freeze(self, labels: Labels | None, why: str) -> None:
        """States that ``labels`` can't leave because of this operator."""
        if labels is not None:
            self.ledger.freeze(labels, f"{why} ({self.place})")


Rule = Callable[[Step], Layout | tuple[Layout, ...]]
_RULES: dict[str, tuple[Rule, Role]] = {}


def rule(*operators: str, role: Role) -> Callable[[Rule], Rule]:
    """Files a rule for operators: names without overload, those of ATen without ``aten::`` too.

    Raises:
        ValueError: one of them has a rule.
    """

    def file(function: Rule) -> Rule:
        for operator in operators:
            if operator in _RULES:
                raise ValueError(f"{operator} has a rule: {_RULES[operator][0].__qualname__}")
            _RULES[operator] = (function, role)
        return function

    return file


def known_operators() -> frozenset[str]:
    """Names of the ATen operators that have a rule."""
    return frozenset(_RULES)


def read_once(network: Network, parts: Mapping[fx.Node, int]) -> Reading:
    """Applies the rules to a traced network in order."""
    reading = Reading(network, Ledger(), parts=parts)
    for node in network.nodes:
        step = Step(node, reading)
        if node.name not in network.inputs and reading.steady.issuperset(node.all_input_nodes):
            reading.steady.add(node)
        if node.op == "placeholder":
            reading.layouts[node], reading.roles[node] = _placeholder(step), "input"
        elif node.op == "output":
            _output(step)
        else:
            _operator(step)
        reading.sources[node] = _sources(step)
        reading.origins[node] = _origins(step)
    return reading


def _sources(step: Step) -> frozenset[fx.Node]:
    """A layer is one itself; what follows from the network's tensors alone has none."""
    node, reading = step.node, step.reading
    if node in reading.steady:
        return frozenset()
    if reading.roles.get(node) in ("layer", "wall", "input"):
        return frozenset({node})
    wrote = {node} if reading.writes and reading.writes[-1].node is node else set()
    return frozenset(wrote).union(*(reading.sources[one] for one in node.all_input_nodes))


_LINEAR = frozenset("add sub subtract rsub".split())
_SCALED = frozenset("mul multiply div divide".split())
_LAYERS = ("conv", "linear")


def _origins(step: Step) -> frozenset[fx.Node]:
    """Back over layers, norms with stored statistics, views, padding, sums and fixed factors."""
    node, reading = step.node, step.reading
    varying = [one for one in node.all_input_nodes if one not in reading.steady]
    name, role = operator_of(node), reading.roles.get(node)
    once = len(varying) == 1 and node.op == "call_function" and node.args[0] is varying[0]
    linear = role in ("norm", "linear", "pad") or name.startswith(_LAYERS) or name in _SCALED
    if (once and linear) or (varying and name in _LINEAR):
        return frozenset({node}).union(
            frozenset.intersection(*(reading.origins[one] for one in varying))
        )
    return frozenset({node})


def _placeholder(step: Step) -> Layout:
    """Parameters and buffers can shrink along every dimension; inputs along none."""
    value = step.node.meta["val"]
    name = step.tensor_name(step.node)
    if not isinstance(value, Tensor):
        return Layout((), "a constant")
    if name is None:
        what = (
            "the network's input" if step.node.name in step.reading.network.inputs else "a constant"
        )
        return Layout((None,) * value.ndim, what)
    slots = (step.ledger.slot(name, d, n) if n > 1 else None for d, n in enumerate(value.shape))
    return Layout(tuple(slots), f"the parameter {name}")


def _output(step: Step) -> None:
    for node in step.node.all_input_nodes:
        layout = step.reading.layouts[node]
        for one in layout if isinstance(layout, tuple) else (layout,):
            step.ledger.outputs.extend(labels for labels in one.dims if labels is not None)


def _operator(step: Step) -> None:
    node, reading = step.node, step.reading
    name = operator_of(node)
    library = str(getattr(node.target, "namespace", "aten"))
    named = name if library == "aten" else f"{library}::{name}"
    known = _RULES.get(named) if _makes_tensors(node) else None
    if known is None:
        reading.layouts[node] = wall(step)
        return
    function, role = known
    reading.roles.setdefault(node, role)
    reading.layouts[node] = function(step)
    if _overlooked(step):
        reading.layouts[node] = wall(step)


def _overlooked(step: Step) -> bool:
    """Whether the operator has an operand with channels that its rule knows nothing of.

    An operator has several overloads, and one of them may take a tensor where the others take a
    number.
    """
    unknown = (one for one in step.operands() if one not in step.looked_at)
    layouts = (step.reading.layouts[one] for one in unknown)
    return any(
        one.tracked()
        for layout in layouts
        for one in (layout if isinstance(layout, tuple) else (layout,))
    )


def wall(step: Step) -> Layout | tuple[Layout, ...]:
    """An operator without a rule: whatever it reads stays as it is, and the report says why."""
    step.reading.roles[step.node] = "wall"
    met = False
    for operand in step.operands():
        layout = step.reading.layouts[operand]
        for one in layout if isinstance(layout, tuple) else (layout,):
            for labels in one.dims:
                step.freeze(labels, "meets an operator without a rule")
                met = met or not (labels is None or step.ledger.is_loose(labels))
    if met:
        step.reading.walls.append(step.place)
    value = step.node.meta.get("val")
    if isinstance(value, tuple | list):
        return tuple(step.fixed(item.shape if isinstance(item, Tensor) else ()) for item in value)
    return step.fixed(value.shape if isinstance(value, Tensor) else ())


def _is_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor | tuple | list)


def _makes_tensors(node: fx.Node) -> bool:
    """False for numbers that the network computes from sizes; assertions make nothing at all."""
    value = node.meta.get("val")
    return value is None or isinstance(value, Tensor | tuple | list)

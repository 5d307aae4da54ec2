"""Rules for products of tensors: matrix products, einsum, attention.

Every product is read as an einsum: a dimension that both factors and the result have is a batch of
products (the heads of attention), one that the result lacks is summed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import fx

from bequest.graph.geometry import arguments
from bequest.graph.ledger import Labels, Layout
from bequest.graph.reading import Read, Write
from bequest.graph.rules.base import Step, rule, wall
from bequest.graph.rules.elementwise import aligned, is_copy
from bequest.graph.trace import operator_of


@dataclass(frozen=True)
class _Factor:
    """A tensor of a product: the letter, labels and size of each of its dimensions."""

    node: fx.Node
    letters: str
    layout: Layout

    def parameter(self, step: Step) -> tuple[str | None, list[int]]:
        """The parameter that it is, as it is or turned, and which of its dimensions is which."""
        node, order = self.node, list(range(len(self.letters)))
        while step.tensor_name(node) is None:
            turned = _turned(node)
            if turned is None:
                return None, order
            order = [turned[dim] for dim in order]
            node = node.all_input_nodes[0]
        return step.tensor_name(node), order

    def at(self, letter: str) -> tuple[Labels | None, int]:
        dim = self.letters.index(letter)
        return self.layout.dims[dim], int(self.node.meta["val"].shape[dim])


@rule("matmul", "bmm", "mm", "mv", "dot", role="join")
def matrix_product(step: Step) -> Layout:
    """The last dimension of the first factor against the last but one of the second."""
    return multiplied(step)


def multiplied(step: Step) -> Layout:
    """The first two operands as matrices, vectors or batches of matrices."""
    first, second = step.arg(0, "self"), step.arg(1, "mat2", step.arg(1, "other"))
    ranks = [len(node.meta["val"].shape) for node in (first, second)]
    batch = "abcdefgh"[: max(*ranks, 2) - 2]
    left = batch[len(batch) - ranks[0] + 2 :] + "nk" if ranks[0] > 1 else "k"
    right = batch[len(batch) - ranks[1] + 2 :] + "km" if ranks[1] > 1 else "k"
    result = batch + "n" * (ranks[0] > 1) + "m" * (ranks[1] > 1)
    return _contract(step, [_factor(step, first, left), _factor(step, second, right)], result)


@rule("addmm", "baddbmm", role="join")
def shifted_product(step: Step) -> Layout:
    """beta·bias + alpha·(a matrix product); a layer where both factors are one."""
    bias, first, second = (step.arg(i, "") for i in range(3))
    batch = "a" * (step.ndim - 2)
    factors = [_factor(step, first, f"{batch}nk"), _factor(step, second, f"{batch}km")]
    plain = step.arg(3, "beta", 1) == step.arg(4, "alpha", 1) == 1
    vector = tuple(bias.meta["val"].shape) == step.shape[-1:]
    product = _contract(step, factors, f"{batch}nm", bias if vector else None)
    if not plain or not vector:
        step.reading.roles[step.node] = "join"
    shapes = [step.shape, tuple(bias.meta["val"].shape)]
    total = aligned(step, [product, step.layout(bias)], shapes)
    if bias not in step.reading.steady:
        step.ledger.streams.extend(labels for labels in total.dims if labels is not None)
    return total


@rule("_grouped_mm", "transformers::grouped_mm_fallback", role="join")
def grouped_product(step: Step) -> Layout | tuple[Layout, ...]:
    """Rows by groups, each with a matrix of its own: (rows, in) x (experts, in, out)."""
    rows, matrices = step.arg(0, "input"), step.arg(1, "weight")
    if [len(one.meta["val"].shape) for one in (rows, matrices)] != [2, 3]:
        return wall(step)
    for labels in (step.layout(matrices).dims[0], *step.layout(step.arg(2, "offs")).dims):
        step.freeze(labels, "is an expert, chosen by its number")
    factors = [_factor(step, rows, "nk"), _factor(step, matrices, "ekm")]
    return _contract(step, factors, "nm")


@rule("einsum", role="join")
def einsum(step: Step) -> Layout:
    """Products and sums as the equation says."""
    equation, nodes = str(step.arg(0, "equation")).replace(" ", ""), step.arg(1, "tensors")
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    if not arrow or "." in equation or any(len(set(term)) < len(term) for term in terms):
        for node in nodes:
            for labels in step.layout(node).dims:
                step.freeze(labels, "meets an einsum with an ellipsis or a diagonal")
        return step.fixed()
    factors = [_factor(step, node, term) for node, term in zip(nodes, terms, strict=True)]
    return _contract(step, factors, output)


@rule("cdist", role="join")
def distances(step: Step) -> Layout:
    """Between all rows of one tensor and all of another: a sum over what they have in common."""
    first, second = step.arg(0, "x1"), step.arg(1, "x2")
    batch = "abcdefgh"[: step.ndim - 2]
    return _contract(
        step,
        [
            _aligned(node, step.layout(node), f"{batch}{row}k")
            for node, row in ((first, "n"), (second, "m"))
        ],
        f"{batch}nm",
        weights=[],
    )


@rule("cosine_similarity", role="join")
def cosine_similarity(step: Step) -> Layout:
    """A product summed over a dimension, by the norms along it: both factors lose the same."""
    nodes = [step.arg(0, "x1"), step.arg(1, "x2")]
    rank = max(len(node.meta["val"].shape) for node in nodes)
    letters = "abcdefghijklmn"[:rank]
    summed = letters[int(step.arg(2, "dim", 1)) % rank]
    factors = [_aligned(node, step.layout(node), letters) for node in nodes]
    _summed_over(step, summed, factors)
    return _contract(step, factors, letters.replace(summed, ""), weights=[])


def _summed_over(step: Step, letter: str, factors: Sequence[_Factor]) -> None:
    """Holds a dimension that one factor repeats along it: its norm counts every repetition."""
    met = [factor.at(letter) for factor in factors if letter in factor.letters]
    if len({size for _, size in met}) > 1 or len(met) < len(factors):
        for labels, _ in met:
            step.freeze(labels, "is summed over")


@rule("bilinear", role="join")
def bilinear(step: Step) -> Layout:
    """y_o = Σ x_i·W_oij·z_j + b_o: reads two sets of channels and writes a third."""
    first, second, weight, bias = (step.arg(i, "") for i in range(4))
    batch = "abcdefgh"[: step.ndim - 1]
    factors = [_factor(step, first, f"{batch}x"), _factor(step, second, f"{batch}z")]
    result = _contract(step, [*factors, _factor(step, weight, "oxz")], f"{batch}o", weights=[])
    rows = result.dims[-1]
    if rows is None:
        return result
    if isinstance(bias, fx.Node):
        own = step.layout(bias).dims[0]
        step.ledger.tie(rows, rows if own is None else own)
    names = step.tensor_name(weight), step.tensor_name(bias)
    step.reading.writes.append(Write(step.node, "linear", *names, 0, rows, 1))
    return result


@rule("scaled_dot_product_attention", role="join")
def attention(step: Step) -> Layout:
    """softmax(q·kᵀ·scale + mask)·v, each (..., heads, tokens, width); heads leave as a whole.

    The queries' and keys' width can only shrink where the scale doesn't follow it. Keys and values
    share one softmax, which a token can't leave.
    """
    query, key, value = (step.arg(i, "") for i in range(3))
    batch = "abcdefgh"[: step.ndim - 2]
    keys, values = (_shared_heads(step, node) for node in (key, value))
    factors = [
        _aligned(query, step.layout(query), f"{batch}ne"),
        _aligned(key, keys, f"{batch}me"),
        _aligned(value, values, f"{batch}mf"),
    ]
    queries, *others = (factor.layout.dims for factor in factors)
    for dims in others:
        step.freeze(dims[-2], "is normalised with its other tokens")
    if step.arg(5, "is_causal", False):
        step.freeze(queries[-2], "is masked by its position")
    if step.node.kwargs.get("scale", step.arg(6, "scale")) is None:
        for dims in (queries, others[0]):
            step.freeze(dims[-1], "is a width that attention is scaled by")
    mask = step.arg(3, "attn_mask")
    if not isinstance(mask, fx.Node):
        return _contract(step, factors, f"{batch}nf")
    masking = _aligned(mask, step.layout(mask), f"{batch}nm")
    for labels in masking.layout.dims[-1:]:
        step.freeze(labels, "masks tokens")
    return _contract(step, [*factors, masking], f"{batch}nf", weights=factors)


def _factor(step: Step, node: fx.Node, letters: str) -> _Factor:
    return _Factor(node, letters, step.layout(node))


def _aligned(node: fx.Node, layout: Layout, letters: str) -> _Factor:
    """A factor that may lack the first dimensions."""
    return _Factor(node, letters[len(letters) - len(layout.dims) :], layout)


def _shared_heads(step: Step, node: fx.Node) -> Layout:
    """Keys or values of which each head serves several heads of queries (``enable_gqa``)."""
    layout = step.layout(node)
    dim = len(layout.dims) - 3
    heads = int(node.meta["val"].shape[dim]) if dim >= 0 else 1
    if heads in (1, step.shape[-3:][0]):
        return layout
    labels = layout.dims[dim]
    if labels is None:
        labels = step.ledger.rest(heads, f"is shared by the heads of {layout.origin}")
    shared = np.repeat(labels, step.shape[-3:][0] // heads)
    return layout.with_dims((*layout.dims[:dim], shared, *layout.dims[dim + 1 :]))


def _contract(
    step: Step,
    factors: Sequence[_Factor],
    result: str,
    bias: fx.Node | None = None,
    weights: Sequence[_Factor] | None = None,
) -> Layout:
    """Ties labels of the same letter; a sum over labels stays whole unless all factors have them.

    A factor that is a parameter is a layer's weight, among ``weights`` where these are given.
    """
    dims = {letter: _letter(step, letter, factors, letter in result) for letter in result}
    summed = dict.fromkeys(letter for factor in factors for letter in factor.letters)
    for letter in summed:
        if letter not in result:
            _letter(step, letter, factors, kept=False)
    for factor in factors if weights is None else weights:
        if len(factor.letters) > 1 and step.node not in step.reading.steady:
            others = "".join(other.letters for other in factors if other is not factor)
            _weight(step, factor, others, result, step.tensor_name(bias))
    return Layout(tuple(dims[letter] for letter in result), step.place)


def _letter(step: Step, letter: str, factors: Sequence[_Factor], kept: bool) -> Labels | None:
    """The labels of one letter, tied over the factors that have it."""
    found = [(*factor.at(letter), factor) for factor in factors if letter in factor.letters]
    full = max(size if labels is None else len(labels) for labels, size, _ in found)
    met = [(labels, factor) for labels, size, factor in found if full in (size, _len(labels))]
    labelled = [labels for labels, _ in met if labels is not None]
    if not labelled:
        return None
    labels = step.ledger.join(labelled)
    fixed = next((f.layout.origin for labels_, f in met if labels_ is None), None)
    if fixed is not None:
        step.hold(labels, f"is multiplied with {fixed}, whose channels are fixed")
        return None
    if len(met) == 1 and not kept:
        step.freeze(labels, "is summed over")
    elif len(met) > 1 and kept:
        step.ledger.batches.append(labels)
    return labels


def _len(labels: Labels | None) -> int:
    return -1 if labels is None else len(labels)


def _weight(step: Step, factor: _Factor, others: str, result: str, bias: str | None) -> None:
    """A parameter's summed dimension reads channels, the one that it adds writes channels."""
    name, order = factor.parameter(step)
    if name is None:
        return
    added = next((letter for letter in reversed(factor.letters) if letter in result), None)
    for dim, letter, labels in zip(order, factor.letters, factor.layout.dims, strict=True):
        if labels is None:
            continue
        if letter in others and letter not in result:
            step.reading.reads.append(Read(step.node, name, bias, dim, labels, 1, False))
            step.reading.roles[step.node] = "layer"
        elif letter == added and letter not in others:
            step.reading.writes.append(Write(step.node, "linear", name, bias, dim, labels, 1))
            step.reading.roles[step.node] = "layer"


def _turned(node: fx.Node) -> list[int] | None:
    """Where each dimension of a value comes from, if an operator turns them; None = it doesn't."""
    name, order = operator_of(node), list(range(node.meta["val"].ndim))
    if is_copy(node) and len(node.all_input_nodes) == 1:
        return order
    if name == "t":
        return order[::-1]
    if name in ("transpose", "swapaxes"):
        first, second = (int(arguments(node)[one]) for one in ("dim0", "dim1"))
        order[first], order[second] = order[second], order[first]
        return order
    return [order[int(d)] for d in arguments(node)["dims"]] if name == "permute" else None

"""How much memory a cell needs, from the traced network."""

from __future__ import annotations

from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from bequest.analysis import Plain
from bequest.artifact.fingerprint import stored_tensors
from bequest.errors import BequestError
from bequest.graph.trace import trace
from bequest.sweeping.network import Network

PROCESS = 600 * 2**20
"""Bytes of a process that has imported PyTorch."""

COPIES = 5
"""Models' worth of memory while one is pruned: dense, pruned, and numbers in double precision."""

BATCH = 256
"""Inputs that pass at once, where networks are measured."""


def memory_of(network: Network) -> int:
    """Bytes of a worker that prunes and measures the network, estimated."""
    weights = sum(one.nbytes for one in stored_tensors(network.model).values())
    try:
        nodes = trace(Plain.of(network.model).model, network.example_inputs).nodes
    except BequestError:  # the cell will say so itself
        nodes = ()
    return PROCESS + COPIES * weights + BATCH * _peak(nodes) // _batch(network)


def _batch(network: Network) -> int:
    first = next((x for x in tree_leaves(network.example_inputs) if isinstance(x, Tensor)), None)
    return len(first) if first is not None and first.dim() else 1


def _peak(nodes: tuple[fx.Node, ...]) -> int:
    """The most bytes of activations that live at once while the operators run in order."""
    sizes = {
        node: sum(x.nbytes for x in tree_leaves(node.meta.get("val")) if isinstance(x, Tensor))
        for node in nodes
        if node.op == "call_function"
    }
    last = {used: node for node in nodes for used in node.all_input_nodes}
    live = peak = 0
    for node in nodes:
        live += sizes.get(node, 0)
        peak = max(peak, live)
        live -= sum(sizes.get(used, 0) for used in node.all_input_nodes if last[used] is node)
    return peak

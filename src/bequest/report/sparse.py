"""A page about a network whose single weights were pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bequest.hypersphere.convert import deconvert
from bequest.hypersphere.prunable import directions
from bequest.report import wording
from bequest.report.histograms import Sizes, histograms
from bequest.report.page import Page, Picture, Section, Table, render


def sparse_page(
    name: str,
    settings: Mapping[str, Any],
    dense: nn.Module,
    pruned: nn.Module,
    result: Mapping[str, Any],
) -> str:
    """Accuracies, histograms and layers as one HTML page.

    Args:
        name: of the network.
        settings: sparsity, mask and scope of the means.
        dense: the network before.
        pruned: and after, recovered or not.
        result: what ``bequest prune --sparsity --json`` prints of the layers and accuracies.
    """
    means = f"their mean per {settings['scope']}" if settings["scope"] else "zeros"
    summary = [
        f"{100 * settings['sparsity']:g} % of the weights pruned (mask: {settings['mask']}), in "
        f"their place {means}; without training."
    ]
    sections = [_accuracies(result["accuracy"])] if result["accuracy"] else []
    picture = Picture(
        histograms(sizes_of(dense, pruned), ("before", "after")),
        "Sizes of the weights, layer by layer; bars above 15 % are cut off.",
    )
    sections += [Section("Weights", pictures=[picture]), _layers(result)]
    return render(Page(f"{name}, pruned", summary, sections))


def sizes_of(before: nn.Module, after: nn.Module) -> list[Sizes]:
    """Sizes of the weights of every layer of two networks of one architecture."""
    ours, theirs = directions(deconvert(before)), directions(deconvert(after))
    found = []
    for name, weight in ours.items():
        unit_size = weight.detach().square().flatten(1).mean(dim=1).sqrt().clamp_min(1e-12)
        first, second = (
            (w.detach().flatten(1).abs() / unit_size[:, None]).flatten().float().cpu().numpy()
            for w in (weight, theirs[name])
        )
        found.append(Sizes(name, first, second))
    return found


def _accuracies(accuracies: Mapping[str, Mapping[str, Any]]) -> Section:
    rows = [
        (name, wording.percent(found["top1"]), f"{found['loss']:.4f}", f"{found['count']:,}")
        for name, found in accuracies.items()
    ]
    return Section("Accuracy", tables=[Table(("network", "top-1", "loss", "images"), rows)])


def _layers(result: Mapping[str, Any]) -> Section:
    shifts = {one["layer"]: one for one in result["spectrum"]}
    rows = [
        (
            one["layer"],
            f"{one['stay']:,}/{one['weights']:,}",
            wording.size(one["bytes"]),
            wording.count(one["multiplications"]),
            f"{shifts[one['layer']]['error']:.3f}" if one["layer"] in shifts else "",
            f"{shifts[one['layer']]['shift']:.3f}" if one["layer"] in shifts else "",
        )
        for one in result["layers"]
    ]
    columns = ("layer", "stay", "stored", "multiplications", "‖W-B‖₂/‖W‖₂", "max |Δσ|/σ₁")
    return Section("Layers", tables=[Table(columns, rows)])

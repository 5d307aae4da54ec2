"""A model card of a pruned network, in the form in which the Hugging Face Hub shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bequest.artifact.plan import GroupPlan, Plan


def model_card(
    plan: Plan, costs: Mapping[str, tuple[int, int]], notes: Sequence[str], origin: str
) -> str:
    """What was pruned, in numbers, as Markdown.

    Args:
        plan: what was done.
        costs: what the network costs, by name: before and after.
        notes: what else is worth knowing.
        origin: name or folder of the dense network; '' = unknown.
    """
    return "\n".join(
        [
            *_front_matter(origin),
            f"# {Path(origin).name or 'A network'}, pruned",
            "",
            f"Channels were removed with bequest "
            f"{plan.versions['bequest']}; the configuration says the new widths, so that "
            "`from_pretrained` of transformers loads it.",
            "",
            "| | dense | pruned | |",
            "|---|---:|---:|---:|",
            *(
                f"| {name} | {before:,} | {after:,} | {after / max(before, 1):.1%} |"
                for name, (before, after) in costs.items()
            ),
            "",
            f"Asked for: {_asked(plan)}.",
            "",
            "| layer | kept | of | error |",
            "|---|---:|---:|---:|",
            *map(_row, plan.groups),
            "",
            *(f"* {note}" for note in notes),
            "",
        ]
    )


def _front_matter(origin: str) -> list[str]:
    base = [f"base_model: {origin}"] if origin and not Path(origin).exists() else []
    return ["---", "library_name: transformers", "tags:", "- pruned", *base, "---", ""]


def _asked(plan: Plan) -> str:
    recipe = plan.recipe
    share = f"ratio {recipe['ratio']}" if recipe.get("target") is None else recipe["target"]
    methods = (f"{kind} {recipe[kind]['name']}" for kind in ("criterion", "restorer"))
    return ", ".join([str(share), *methods, f"seed {recipe['seed']}"])


def _row(group: GroupPlan) -> str:
    error = group.reconstruction_error
    shown = "" if error is None else f"{error:.3g}"
    return f"| `{group.name}` | {group.kept} | {group.size} | {shown} |"

"""From JSON to a :class:`Plan`: every field has its type and range, or the plan is refused.

A plan is replayed on a model, so what it may say is kept narrow: indices that ascend, widths that
only shrink, and attributes from a closed list.
"""

from __future__ import annotations

from collections.abc import Mapping

from bequest.artifact import fields
from bequest.artifact.plan import VERSION, Form, GroupPlan, Plan, Refusal
from bequest.surgery.attributes import COUNTS, HELD
from bequest.surgery.operation import Attribute, Surgery, TensorCut

WIDTH_ATTRIBUTES = (
    HELD
    | {f"config.{name}" for name in COUNTS}
    | frozenset(
        "in_channels out_channels groups in_features out_features embedding_dim num_embeddings "
        "num_features num_channels num_groups normalized_shape num_parameters nx nf input_size "
        "hidden_size proj_size in1_features in2_features".split()
    )
)
"""The attributes of modules that a plan may change."""

_GROUP_FIELDS = (
    "name kind producers consumers size removed restored_by reconstruction_error notes "
    "unrestored_error predicted_error condition ridge".split()
)

PLAN_FIELDS = tuple("version architecture recipe versions groups refused surgery form".split())


def parse_plan(value: object) -> Plan:
    """The plan that :meth:`Plan.to_json` wrote.

    Raises:
        ArtifactError: another version, or a field is missing, unknown, of another type or out of
            range. What depends on the model is checked when the surgery is replayed.
    """
    require_version(fields.mapping(value, "the plan"))
    _, architecture, recipe, versions, groups, refused, surgery, form = fields.record(
        value, "the plan", *PLAN_FIELDS
    )
    return Plan(
        architecture=fields.digest(architecture, "architecture"),
        recipe={
            key: fields.plain(item, f"recipe.{key}")
            for key, item in fields.mapping(recipe, "recipe").items()
        },
        versions={
            key: fields.text(item, f"versions.{key}")
            for key, item in fields.mapping(versions, "versions").items()
        },
        groups=tuple(
            parse_group(item, f"groups[{i}]")
            for i, item in enumerate(fields.sequence(groups, "groups"))
        ),
        refused=tuple(
            parse_refusal(item, f"refused[{i}]")
            for i, item in enumerate(fields.sequence(refused, "refused"))
        ),
        surgery=_surgery(surgery),
        form=_form(form),
    )


def require_version(document: Mapping[str, object]) -> None:
    """Raises ArtifactError where a plan is of another version, whatever its fields are there."""
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        fields.refuse(
            "version", f"{VERSION} (another one is read by the bequest that wrote it)", version
        )


def _form(value: object) -> Form:
    if value not in ("module", "program"):
        fields.refuse("form", "'module' or 'program'", value)
    return value


def parse_group(value: object, where: str) -> GroupPlan:
    """What a plan says of a group; ``where`` names it in messages."""
    name, kind, producers, consumers, size, removed, restored_by, error, notes, *numbers = (
        fields.record(value, where, *_GROUP_FIELDS)
    )
    unrestored, predicted, condition, ridge = (
        _optional(number, f"{where}.{field}")
        for number, field in zip(numbers, _GROUP_FIELDS[-4:], strict=True)
    )
    if kind not in ("inner", "residual"):
        fields.refuse(f"{where}.kind", "'inner' or 'residual'", kind)
    width = fields.integer(size, f"{where}.size", 1)
    gone = fields.ascending(fields.integers(removed, f"{where}.removed"), f"{where}.removed")
    if gone and gone[-1] >= width:
        fields.refuse(f"{where}.removed", f"indices under {width}", gone[-1])
    return GroupPlan(
        name=fields.text(name, f"{where}.name"),
        kind=fields.text(kind, f"{where}.kind"),
        producers=fields.texts(producers, f"{where}.producers"),
        consumers=fields.texts(consumers, f"{where}.consumers"),
        size=width,
        removed=gone,
        restored_by=fields.text(restored_by, f"{where}.restored_by"),
        reconstruction_error=_optional(error, f"{where}.reconstruction_error"),
        notes=fields.texts(notes, f"{where}.notes"),
        unrestored_error=unrestored,
        predicted_error=predicted,
        condition=condition,
        ridge=ridge,
    )


def _optional(value: object, where: str) -> float | None:
    return None if value is None else fields.finite(value, where)


def parse_refusal(value: object, where: str) -> Refusal:
    """What a plan says of a group that stays; ``where`` names it in messages."""
    group, size, reason = fields.record(value, where, "group", "size", "reason")
    return Refusal(
        group=fields.text(group, f"{where}.group"),
        size=fields.integer(size, f"{where}.size"),
        reason=fields.text(reason, f"{where}.reason"),
    )


def _surgery(value: object) -> Surgery:
    cuts, attributes, biases = fields.record(value, "surgery", "cuts", "attributes", "biases")
    cut_list = fields.sequence(cuts, "surgery.cuts")
    attribute_list = fields.sequence(attributes, "surgery.attributes")
    return Surgery(
        cuts=tuple(_cut(item, f"surgery.cuts[{i}]") for i, item in enumerate(cut_list)),
        attributes=tuple(
            _attribute(item, f"surgery.attributes[{i}]") for i, item in enumerate(attribute_list)
        ),
        biases=fields.texts(biases, "surgery.biases"),
    )


def _cut(value: object, where: str) -> TensorCut:
    tensor, dim, keep, blocks = fields.record(value, where, "tensor", "dim", "keep", "blocks")
    cut = TensorCut(
        tensor=fields.text(tensor, f"{where}.tensor"),
        dim=fields.integer(dim, f"{where}.dim"),
        keep=fields.integers(keep, f"{where}.keep"),
        blocks=fields.integer(blocks, f"{where}.blocks", 1),
    )
    if not cut.keep or len(cut.keep) % cut.blocks:
        fields.refuse(f"{where}.keep", f"the same number of indices per block ({cut.blocks})", keep)
    if cut.blocks > 1 and cut.dim == 0:
        fields.refuse(f"{where}.dim", "a dimension after the rows that fall into blocks", dim)
    each = len(cut.keep) // cut.blocks
    for start in range(0, len(cut.keep), each):
        fields.ascending(cut.keep[start : start + each], f"{where}.keep")
    return cut


def _attribute(value: object, where: str) -> Attribute:
    module, name, before, after = fields.record(value, where, "module", "name", "before", "after")
    attribute = fields.text(name, f"{where}.name")
    if attribute not in WIDTH_ATTRIBUTES:
        fields.refuse(f"{where}.name", f"one of {', '.join(sorted(WIDTH_ATTRIBUTES))}", attribute)
    wide, narrow = _widths(before, f"{where}.before"), _widths(after, f"{where}.after")
    pairs = list(zip(wide, narrow, strict=False))
    if isinstance(before, list) != isinstance(after, list) or len(wide) != len(narrow):
        fields.refuse(f"{where}.after", "as many numbers as before", after)
    if any(left < right for left, right in pairs):
        fields.refuse(f"{where}.after", "at most the width before", after)
    return Attribute(
        module=fields.text(module, f"{where}.module"),
        name=attribute,
        before=wide if isinstance(before, list) else wide[0],
        after=narrow if isinstance(after, list) else narrow[0],
    )


def _widths(value: object, where: str) -> tuple[int, ...]:
    """A width, or the widths of several dimensions, as a tuple."""
    if isinstance(value, list):
        return fields.integers(value, where, 1)
    return (fields.integer(value, where, 1),)

"""The document ``plan.json``: the plan, what the tensor file must hold, and a seal over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from bequest.artifact import fields
from bequest.artifact.parse import PLAN_FIELDS, parse_plan, require_version
from bequest.artifact.plan import Plan
from bequest.errors import ArtifactError, UsageError
from bequest.sparse.encoding import TensorSpec

_FILE_FIELDS = ("checksum", "size", "tensors", "program")


@dataclass(frozen=True)
class Manifest:
    """Everything that ``plan.json`` says.

    Attributes:
        plan: what was done to the dense network.
        checksum: SHA-256 of the tensor file.
        size: bytes of the tensor file.
        tensors: what the tensor file holds, by name.
        program: the operators of a network that was saved without its class, else None; looked at
            by :func:`bequest.artifact.program.load_program`.
    """

    plan: Plan
    checksum: str
    size: int
    tensors: Mapping[str, TensorSpec]
    program: object = None

    def encode(self) -> bytes:
        """The document as JSON; :meth:`decode` reads it back.

        Raises:
            UsageError: the plan holds something that can't be written or would not be read back,
                e.g. an object in the recipe or an infinite number.
        """
        entries = {
            name: {"dtype": spec.dtype, "shape": spec.shape} for name, spec in self.tensors.items()
        }
        body = {
            **self.plan.to_json(),
            "checksum": self.checksum,
            "size": self.size,
            "tensors": entries,
            "program": self.program,
        }
        try:
            plain = json.loads(json.dumps(body, allow_nan=False))
            document = json.dumps({**plain, "seal": _seal(plain)}, separators=(",", ":")).encode()
            Manifest.decode(document)
        except (TypeError, ValueError, RecursionError, ArtifactError) as error:
            raise UsageError(f"plan: expected what plan.json can hold; {error}") from error
        return document

    @classmethod
    def decode(cls, document: bytes) -> Manifest:
        """The manifest in a document of :meth:`encode`.

        Raises:
            ArtifactError: the document is no JSON, was altered, or a field is not what it must be.
        """
        try:
            body = json.loads(document.decode("utf-8"), parse_constant=_refuse_constant)
            seal = body.pop("seal", None) if isinstance(body, dict) else None
            expected = _seal(body)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(
                f"expected a JSON object, found text that is none: {error}"
            ) from error
        if seal != expected:
            raise ArtifactError(
                "expected the content that was saved, found another: its seal does not fit; "
                "the file was truncated or altered"
            )
        held = fields.mapping(body, "the document")
        require_version(held)
        missing = [name for name in (*PLAN_FIELDS, *_FILE_FIELDS) if name not in held]
        if missing:
            fields.refuse("the document", f"the fields {', '.join(missing)}", list(held))
        checksum, size, tensors, program = (held.pop(name) for name in _FILE_FIELDS)
        return cls(
            plan=parse_plan(held),
            checksum=fields.digest(checksum, "checksum"),
            size=fields.integer(size, "size"),
            tensors={
                name: _spec(entry, f"tensors.{name}")
                for name, entry in fields.mapping(tensors, "tensors").items()
            },
            program=program,
        )


def _spec(value: object, where: str) -> TensorSpec:
    dtype, shape = fields.record(value, where, "dtype", "shape")
    return TensorSpec(
        dtype=fields.text(dtype, f"{where}.dtype"),
        shape=fields.integers(shape, f"{where}.shape"),
    )


def _seal(body: object) -> str:
    """SHA-256 of the canonical JSON text: sorted names, no spaces, ASCII."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")

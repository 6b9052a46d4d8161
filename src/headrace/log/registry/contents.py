"""What a schema's text means, for each kind: is it one, what makes it the same as another, does it fit.

Protobuf is a gap: it would need a compiler for .proto files. It is refused with this reason.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.log.registry.avro_compatibility import Difference, reading_problems
from headrace.log.registry.avro_schema import SchemaInvalid, canonical_avro, not_json, parse_avro
from headrace.log.registry.json_compatibility import reading_problems_json

__all__ = ["KINDS", "PROTOBUF_GAP", "Content", "read_content"]

KINDS = ("AVRO", "JSON")
PROTOBUF_GAP = "Protobuf schemas are not supported: Headrace has no compiler for .proto files"
_DIALECTS = {
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
}


@dataclass(frozen=True)
class Content:
    """A checked schema.

    text         as it is kept: what two schemas that are one have in common
    references   the texts of what it refers to, by name, each with what that one refers to before it
    parsed       an `AvroType`, or the JSON document
    """

    kind: str
    text: str
    references: tuple[tuple[str, str], ...]
    parsed: Any

    @property
    def fingerprint(self) -> str:
        """The same for two schemas that are one."""
        told = json.dumps([self.kind, self.text, self.references])
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def guid(self) -> str:
        """A name of the content that every registry would give alike."""
        return str(uuid.UUID(bytes=hashlib.md5(self.fingerprint.encode(), usedforsecurity=False).digest()))

    def validator(self) -> Any:
        """Return what checks documents by a JSON Schema; `jsonschema`'s, which is given nothing to fetch."""
        document = self.parsed
        if self.references and isinstance(document, dict):
            # What is referred to becomes part of the document, under its name as its identifier.
            word = "$defs" if "$defs" in document else "definitions"
            named = {
                f"_{at}": {**json.loads(text), "$id": name} for at, (name, text) in enumerate(self.references)
            }
            document = {**document, word: {**document.get(word, {}), **named}}
        return _validator_class(document)(document)

    def problems_reading(self, written: Content) -> list[Difference]:
        """Return why data of the schema `written` may not be read with this one."""
        if self.kind != written.kind:
            what = f"a schema of type {self.kind} cannot read one of type {written.kind}"
            return [Difference("TYPE_MISMATCH", "/", what)]
        if self.kind == "AVRO":
            return reading_problems(self.parsed, written.parsed)
        return reading_problems_json(
            self.parsed, written.parsed, _documents(self.references), _documents(written.references)
        )


def _documents(references: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in references}


def read_content(
    kind: str, text: str, references: Mapping[str, str] | None = None, *, normalize: bool = False
) -> Content:
    """Check a schema. `references` are texts by name, in the order in which they need each other.

    Raises SchemaInvalid.
    """
    named = tuple((references or {}).items())
    if kind == "AVRO":
        parsed = parse_avro(text, [each for _, each in named])
        return Content(kind, canonical_avro(text, normalize=normalize), named, parsed)
    if kind == "JSON":
        document = _json_schema(text, dict(named))
        return Content(
            kind,
            json.dumps(document, separators=(",", ":"), ensure_ascii=False, sort_keys=normalize),
            named,
            document,
        )
    if kind == "PROTOBUF":
        raise SchemaInvalid(PROTOBUF_GAP, fix="use AVRO or JSON")
    raise SchemaInvalid(f"unknown schema type '{kind[:50]}'", fix=f"use one of {', '.join(KINDS)}")


def _json_schema(text: str, references: Mapping[str, str]) -> Any:
    import jsonschema  # type: ignore[import-untyped]

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise not_json(error) from None
    if not isinstance(document, dict | bool):
        raise SchemaInvalid("a JSON Schema is an object, or true or false")
    try:
        validator = _validator_class(document)
        validator.check_schema(document)
    except jsonschema.SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path)
        raise SchemaInvalid(
            f"the schema is not JSON Schema: '{error.validator}' is not met (at /{place})"
        ) from None
    except RecursionError:
        raise SchemaInvalid("the schema is nested too deep") from None
    for target in _references_in(document):
        base = target.partition("#")[0]
        if base and base not in references and base not in _ids_in(document):
            raise SchemaInvalid(
                f"the schema refers to '{base[:200]}', which is not among its references",
                fix='add {"name": …, "subject": …, "version": …} to "references"',
            )
    return document


def _validator_class(document: Any) -> Any:
    import jsonschema

    dialect = document.get("$schema") if isinstance(document, dict) else None
    name = _DIALECTS.get(str(dialect).rstrip("#"), "Draft7Validator")
    return getattr(jsonschema, name)


def _references_in(document: Any) -> list[str]:
    if isinstance(document, dict):
        found = [document["$ref"]] if isinstance(document.get("$ref"), str) else []
        return found + [each for value in document.values() for each in _references_in(value)]
    return (
        [each for value in document for each in _references_in(value)] if isinstance(document, list) else []
    )


def _ids_in(document: Any) -> set[str]:
    if isinstance(document, dict):
        own = document.get("$id", document.get("id"))
        found = {own} if isinstance(own, str) else set()
        return found.union(*(_ids_in(value) for value in document.values()))
    return set().union(*(_ids_in(value) for value in document)) if isinstance(document, list) else set()

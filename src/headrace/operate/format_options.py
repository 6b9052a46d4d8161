"""The options of a stream that say how its records are written."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from dataclasses import dataclass

from headrace.operate.options import Kind, option
from headrace.operate.secrets import Secret

__all__ = ["FormatOptions"]


@dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """How the values of a stream are written, on whichever log."""

    format: str = option(
        Kind.CHOICE,
        "json",
        "how records are written; avro and json_schema name a schema of the registry",
        choices={
            "json": "",
            "avro": "",
            "json_schema": "",
            "protobuf": "Headrace has no compiler for .proto files",
        },
    )
    registry: str | None = option(Kind.TEXT, None, "the address of the schema registry")
    registry_user: str | None = option(Kind.TEXT, None, "who asks the registry")
    registry_password: Secret | None = option(Kind.SECRET, None, "what the registry asks of that user")
    registry_subject: str | None = option(
        Kind.TEXT, None, "where the stream's schemas belong in the registry; none: TOPIC-value"
    )
    registry_schema: str | None = option(
        Kind.TEXT, None, "a file with the schema, in place of the one that follows from the declared columns"
    )
    registry_auto_register: str = option(
        Kind.CHOICE,
        "yes",
        "whether producers register the schema; no: it has to be registered",
        choices={"yes": "", "no": ""},
    )

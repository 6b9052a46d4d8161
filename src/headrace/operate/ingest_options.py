"""The `ingest` section of a profile: what `headrace ingest` takes, and from whom."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from dataclasses import dataclass

from headrace.operate.options import Kind, option
from headrace.operate.secrets import Secret

__all__ = ["IngestOptions"]


@dataclass(frozen=True)
class IngestOptions:
    """What is taken over HTTP, and from whom."""

    token: Secret | None = option(
        Kind.SECRET,
        None,
        "what senders must show (`Authorization: Bearer …`), 16 characters or more; none: only on loopback",
    )
    certificate: str | None = option(Kind.PATH, None, "the TLS certificate, a PEM file with its chain")
    certificate_key: str | None = option(Kind.PATH, None, "the key of the certificate, a PEM file")
    plain_http: str = option(
        Kind.CHOICE,
        "loopback",
        "where records may be taken without TLS; `anywhere` is for a proxy in front that ends TLS",
        choices={"loopback": "", "anywhere": ""},
    )
    body_bytes_max: int = option(Kind.SIZE, 8 * 1024 * 1024, "a larger body is refused (413)")
    record_bytes_max: int = option(Kind.SIZE, 1_000_000, "a larger record is refused (413)")
    behind_records_max: int | None = option(
        Kind.WHOLE, None, "when the pipeline is further behind, records are refused (429); none: never"
    )

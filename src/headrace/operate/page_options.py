"""The `page` section of a profile: where the live page of a run is served, and to whom."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from dataclasses import dataclass

from headrace.operate.options import Kind, option
from headrace.operate.secrets import Secret

__all__ = ["PageOptions"]


@dataclass(frozen=True)
class PageOptions:
    """Where the page of a run is, and who may look at it."""

    serve: str = option(Kind.CHOICE, "on", "whether a run serves its page", choices={"on": "", "off": ""})
    host: str = option(Kind.TEXT, "127.0.0.1", "where to listen; another address than loopback needs a token")
    port: int = option(
        Kind.WHOLE,
        8600,
        "where to listen; 0, and a port that is taken: one that is free",
        at_least=0,
        at_most=65_535,
    )
    token: Secret | None = option(
        Kind.SECRET, None, "what visitors must show, 16 characters or more; none: only on loopback"
    )
    panels_token: Secret | None = option(
        Kind.SECRET,
        None,
        "for programs beside visitors, such as Grafana: it reads panels and metrics, and does nothing else",
    )
    certificate: str | None = option(Kind.PATH, None, "the TLS certificate, a PEM file with its chain")
    certificate_key: str | None = option(Kind.PATH, None, "the key of the certificate, a PEM file")
    plain_http: str = option(
        Kind.CHOICE,
        "loopback",
        "where the page may go without TLS; `anywhere` is for a proxy in front that ends TLS",
        choices={"loopback": "", "anywhere": ""},
    )
    names: tuple[str, ...] = option(
        Kind.LIST, (), "host names under which browsers reach the page, beside localhost and IP addresses"
    )

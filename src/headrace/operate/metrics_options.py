"""The `metrics` section of a profile: where metrics are scraped, under which names, and what is beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.operate.options import Kind, option

__all__ = ["MetricsOptions"]


@dataclass(frozen=True)
class MetricsOptions:
    """How metrics are published for Prometheus."""

    port: int | None = option(
        Kind.WHOLE, None, "a port that serves `/metrics`; none: no port of its own", at_most=65_535
    )
    host: str = option(Kind.TEXT, "127.0.0.1", "the address of that port")
    names: str = option(
        Kind.CHOICE,
        "headrace",
        "`both` publishes metrics also under the names that older dashboards use (see metrics.md)",
        choices={"headrace": "", "both": ""},
    )
    alias: Mapping[str, str] | None = option(
        Kind.SETTINGS, None, 'further names: `{ my_records_total = "headrace_records_read_total" }`'
    )
    generator: str | None = option(
        Kind.TEXT, None, "HOST:PORT of `headrace generate --metrics-port`, for `headrace export prometheus`"
    )
    targets: Mapping[str, str] | None = option(
        Kind.SETTINGS,
        None,
        "other exporters, for `headrace export prometheus`: "
        '`{ kafka = "broker:9308", postgresql = "db:9187", node = "host:9100" }`',
    )

"""The `telemetry` section of a profile: who is told of epochs as traces, and of tables as lineage."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from headrace.operate.options import Kind, Report, option, read_options
from headrace.operate.secrets import Secret

__all__ = ["TelemetryOptions", "read_telemetry"]


@dataclass(frozen=True)
class TelemetryOptions:
    """Receivers of OpenTelemetry traces and OpenLineage events. Both need headrace[telemetry]."""

    traces: str | None = option(
        Kind.TEXT,
        None,
        "where traces go by OTLP over HTTP: `http://localhost:4318`; none: nobody gets any",
    )
    traces_headers: Secret | None = option(
        Kind.SECRET, None, "headers of these requests, as OpenTelemetry writes them: `api-key=…,tenant=…`"
    )
    lineage: str | None = option(
        Kind.TEXT, None, "where OpenLineage events go: `http://localhost:5000`; none: nobody gets any"
    )
    lineage_key: Secret | None = option(Kind.SECRET, None, "shown there as `Authorization: Bearer …`")
    lineage_namespace: str = option(Kind.TEXT, "headrace", "the namespace of the jobs in these events")
    lineage_every: timedelta = option(
        Kind.DURATION, timedelta(minutes=1), "how often a run that goes on says how far it is"
    )

    @property
    def wanted(self) -> bool:
        """Whether anybody is told anything."""
        return self.traces is not None or self.lineage is not None

    @property
    def secrets(self) -> dict[str, Secret | None]:
        """What a run reads, by option: nothing of a receiver that is not named."""
        return {
            "traces_headers": self.traces_headers if self.traces is not None else None,
            "lineage_key": self.lineage_key if self.lineage is not None else None,
        }


def read_telemetry(raw: object, path: str, folder: Path, report: Report) -> TelemetryOptions:
    """Read the section; a problem goes to `report`."""
    options = read_options(TelemetryOptions, raw, path=path, folder=folder, report=report)
    for name in ("traces", "lineage"):
        address = getattr(options, name)
        if address is None or "${" in address:  # a reference that leads nowhere, which is told
            continue
        problem = _problem_of(address)
        if problem:
            report(f"{path}.{name}", *problem)
    return options


def _problem_of(address: str) -> tuple[str, str] | None:
    """Return what is wrong with an address and the fix; the address itself may hold a secret."""
    try:
        at = urlsplit(address)
        known = at.scheme in ("http", "https") and bool(at.hostname) and (at.port is None or at.port > 0)
    except ValueError:
        known = False
    if not known:
        return "is no address of a web server", "write it like http://localhost:4318"
    if at.username is not None or at.password is not None:
        return "holds a user or a password", "give those in traces_headers or lineage_key, as ${env:NAME}"
    return None

"""Reads `replicas.NAME = { kind = …, … }` of a profile into the description of a replica."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.errors import ProfileError
from headrace.operate.options import Report, read_options

__all__ = ["read_replicas"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def read_replicas(raw: object, path: str, folder: Path, report: Report) -> dict[str, Any]:
    """Return the description of every replica by its name; nothing is connected. Problems go to `report`."""
    if not isinstance(raw, Mapping):
        report(path, "takes a table", 'write replicas.NAME = { kind = "postgresql", dsn = "${env:PG_DSN}" }')
        return {}
    found = {}
    for name, binding in raw.items():
        replica = _read_replica(name, binding, f"{path}.{name}", folder, report)
        if replica is not None:
            found[name] = replica
    return found


def _read_replica(name: str, raw: object, path: str, folder: Path, report: Report) -> Any:
    from headrace.replicate.kinds import replica_kind, replica_kinds

    if not _NAME.fullmatch(name):
        report(path, "is no name for a replica", "use letters, digits, _ and -: it names files")
        return None
    kind = raw.get("kind") if isinstance(raw, Mapping) else None
    if not isinstance(kind, str):
        report(path, "does not say which system it is", "add kind = one of: " + ", ".join(replica_kinds()))
        return None
    try:
        described = replica_kind(kind)
    except ProfileError as error:
        missing_package = isinstance(error.__cause__, ImportError)
        report(f"{path}.kind", error.message, error.fix, absent=missing_package)
        return None
    return read_options(described, raw, path=path, folder=folder, report=report)
